"""Which trials run: the spec, the methods, the rungs."""

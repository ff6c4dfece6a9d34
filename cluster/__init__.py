"""Where trials run and what they leave: Ray, the experiment folder, the ledger."""

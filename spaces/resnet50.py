"""Transfer learning with ResNet50: what may vary, and what one would run by hand."""

from spaces._transfer import BASELINE, SPACE

__all__ = ["BASELINE", "SPACE"]

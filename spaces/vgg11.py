"""VGG11: what may vary, and what one would run by hand."""

from typing import Any

from spaces._shared import ACTIVATION, BATCH_NORM, DENSE_UNITS, DROPOUT, FILTERS
from spaces.domains import Choice
from spaces.knobs import Knob

SPACE: dict[str, Knob] = {
    "base_width": Knob(
        Choice((16, 32, 64)), "filters of the first layer", "the paper's 64 and two for small images", FILTERS
    ),
    "dense_units": DENSE_UNITS,
    "dropout": DROPOUT,
    "activation": ACTIVATION,
    "batch_norm": BATCH_NORM,
}

BASELINE: dict[str, Any] = {
    "base_width": 32,
    "dense_units": 512,
    "dropout": 0.5,
    "activation": "relu",
    "batch_norm": True,
}

"""A plain convolutional network: what may vary, and what one would run by hand."""

from typing import Any

from spaces._shared import ACTIVATION, BATCH_NORM, DENSE_UNITS, DROPOUT, FILTERS, KERNEL_SIDES
from spaces.domains import Choice, Integer
from spaces.knobs import Between, Knob

SPACE: dict[str, Knob] = {
    "depth": Knob(Integer(2, 6), "convolutions", "6 reach 4 x 4 from 224 pixels", Between(1, 20, whole=True)),
    "filters": Knob(Choice((16, 32, 64)), "filters of the first layer", "they double up to eightfold", FILTERS),
    "kernel": Knob(Choice((3, 5)), "pixels", "larger ones are stacks of these", KERNEL_SIDES),
    "dense_layers": Knob(Integer(1, 3), "layers", "more hardly ever help", Between(1, 8, whole=True)),
    "dense_units": DENSE_UNITS,
    "dropout": DROPOUT,
    "activation": ACTIVATION,
    "batch_norm": BATCH_NORM,
}

BASELINE: dict[str, Any] = {
    "depth": 3,
    "filters": 32,
    "kernel": 3,
    "dense_layers": 1,
    "dense_units": 128,
    "dropout": 0.5,
    "activation": "relu",
    "batch_norm": False,
}

"""AlexNet: what may vary, and what one would run by hand."""

from typing import Any

from spaces._shared import ACTIVATION, BATCH_NORM, DENSE_UNITS, DROPOUT, FILTERS, KERNEL_SIDES
from spaces.domains import Choice, Integer
from spaces.knobs import Knob


def _filters(low: int, high: int, step: int) -> Knob:
    return Knob(Integer(low, high, step=step), "filters", "up to half the paper's width: images are small", FILTERS)


_WIDE_KERNEL = Knob(Choice((3, 5, 7, 11)), "pixels", "the paper's 11 was for 224 pixels", KERNEL_SIDES)
_KERNEL = Knob(Choice((3, 5)), "pixels", "the paper's two", KERNEL_SIDES)

SPACE: dict[str, Knob] = {
    "conv1_filters": _filters(32, 96, 16),
    "conv1_kernel": _WIDE_KERNEL,
    "conv2_filters": _filters(64, 192, 32),
    "conv2_kernel": _KERNEL,
    "conv3_filters": _filters(64, 192, 32),
    "conv3_kernel": _KERNEL,
    "conv4_filters": _filters(64, 192, 32),
    "conv5_filters": _filters(64, 192, 32),
    "dense_units": DENSE_UNITS,
    "dropout": DROPOUT,
    "activation": ACTIVATION,
    "batch_norm": BATCH_NORM,
}

BASELINE: dict[str, Any] = {
    "learning_rate": 3e-4,  # without batch norm, the usual 1e-3 often diverges
    "conv1_filters": 64,
    "conv1_kernel": 5,
    "conv2_filters": 128,
    "conv2_kernel": 5,
    "conv3_filters": 192,
    "conv3_kernel": 3,
    "conv4_filters": 128,
    "conv5_filters": 128,
    "dense_units": 512,
    "dropout": 0.5,
    "activation": "relu",
    "batch_norm": False,
}

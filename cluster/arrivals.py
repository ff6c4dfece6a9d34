"""What trials had when they came to an epoch, kept so that a cutoff is computed without going through all trials."""

from array import array
from bisect import bisect_left
from math import nan
from typing import Any

Row = dict[str, Any]

# What a higher value of a metric means: +1 better, -1 worse.
METRICS = {"val_accuracy": 1, "val_loss": -1, "val_balanced_accuracy": 1, "val_macro_f1": 1}


class Arrivals:
    """The metrics of epoch rows, in the order of their `seq`; what is no number is NaN."""

    def __init__(self) -> None:
        self._seqs = array("q")
        self._values: dict[str, array[float]] = {}

    def add(self, row: Row) -> None:
        """Take in the epoch row of one more trial."""
        for metric in METRICS:
            value = row.get(metric)
            self._values.setdefault(metric, array("d")).append(nan if value is None else value)
        self._seqs.append(row["seq"])

    def before(self, seq: int, metric: str) -> "array[float]":
        """Return the values of a metric in the rows before `seq`."""
        return self._values.get(metric, array("d"))[: bisect_left(self._seqs, seq)]

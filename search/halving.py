"""Rungs and stopping decisions: pure functions of the rows before them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.arrivals import METRICS
from cluster.forecast import Stopping
from cluster.history import History
from cluster.proposal import Decision
from cluster.record import TrialRecord

Row = dict[str, Any]
REDUCTION_FACTOR = 3


def grace_period(epochs: int) -> int:
    """Return the epochs every trial gets: a tenth of the training, one at least.

    A grace of one epoch loses to random search where early epochs mislead.
    """
    return max(1, epochs // 10)


def rungs(epochs: int, grace: int, factor: int = REDUCTION_FACTOR) -> list[int]:
    """Return the epochs at which trials are compared, ascending: grace, grace x factor, ..., below `epochs`."""
    levels = []
    level = grace
    while level < epochs:
        levels.append(level)
        level *= factor
    return levels


def stopping(epochs: int, grace_images: float | None = None) -> Stopping:
    """Return the rungs of a training of so many epochs, the quantile that its trials must reach there, and the share of
    the images that they are trained on up to the first one."""
    grace = grace_period(epochs)
    return Stopping(tuple(rungs(epochs, grace)), 1 - 1 / REDUCTION_FACTOR, (grace, grace_images or 1.0))


def work_of(epochs: int, grace_images: float | None) -> dict[str, Any]:
    """Return what a trial is to do: its epochs, and how it begins where that is not with all images."""
    work: dict[str, Any] = {"epochs": epochs, "schedule_epochs": epochs}
    return work | ({"grace": [grace_period(epochs), grace_images]} if grace_images else {})


def cutoff_of(before: Sequence[float] | npt.NDArray[np.float64], factor: int = REDUCTION_FACTOR) -> float:
    """Return what a trial must reach at a rung, given what those before it had there; higher is better."""
    return float(np.percentile(before, (1 - 1 / factor) * 100))


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving (ASHA; Li et al., 2020), within one architecture.

    A trial that reaches a rung goes on if its metric is at or above the (1 - 1/factor) quantile of those that
    reached the rung before it; the first one always does. The same arrivals give the same decisions as Ray's
    `ASHAScheduler`. An arrival without a finite value is stopped.
    """

    metric: str
    epochs: int
    factor: int = REDUCTION_FACTOR

    def decide(self, history: History, record: TrialRecord, row: Row) -> Decision | None:
        """Return the decision at a rung, or None between rungs and at the last epoch."""
        epoch = row["epoch"]
        if epoch not in rungs(self.epochs, grace_period(self.epochs), self.factor):
            return None
        value = row[self.metric]
        there = np.array(history.arrivals(record.architecture, epoch).before(row["seq"], self.metric))
        before = there[~np.isnan(there)]
        if value is None:
            return Decision(True, f"stopped at epoch {epoch}: {self.metric} is not a number", rung=True)
        if not before.size:
            return Decision(False, f"went on at epoch {epoch}: the first trial to get there", rung=True)
        sign = METRICS[self.metric]
        cutoff = sign * cutoff_of(sign * before, self.factor)
        stop = sign * value < sign * cutoff
        among = f"the cutoff of {len(before)} trial{'s' * (len(before) > 1)} was {cutoff:.4g}"
        verb = "stopped" if stop else "went on"
        return Decision(stop, f"{verb} at epoch {epoch}: {self.metric} {value:.4g}, {among}", rung=True)


def out_of_patience(record: TrialRecord, row: Row, patience: int) -> Decision | None:
    """Return the decision to end a trial whose validation loss has not fallen for `patience` epochs, or None."""
    seen = [
        (epoch["val_loss"], epoch["epoch"]) for epoch in record.epochs[: row["epoch"]] if epoch["val_loss"] is not None
    ]
    if not seen:
        return None
    lowest, at = min(seen)
    if row["epoch"] - at < patience:
        return None
    sentence = f"patience: val_loss has not fallen for {patience} epochs, lowest {lowest:.4g} at epoch {at}"
    return Decision(True, sentence, status="completed", cause="patience")

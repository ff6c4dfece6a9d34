"""One trial, as the rows of a ledger tell it, and the order of trials."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cluster.arrivals import METRICS

Row = dict[str, Any]
Place = tuple[bool, int, float, float, int]

# Why a worker process ended without an outcome of its trial. A retired one had done nothing to the next trial; an
# unfit one was on a host that could not get what trials need.
LOSSES = ("died", "hung", "out_of_memory", "retired", "unfit")
NOT_CHARGED = ("retired", "unfit")


@dataclass
class TrialRecord:
    """One trial as the ledger knows it: what was proposed, what each epoch gave, how it ended."""

    trial: int
    role: str
    architecture: str
    config: dict[str, Any]
    seed: int
    work: dict[str, Any]
    method: str
    proposed_time: float
    attempts: int = 0
    reopened: int = 0
    n_params: int | None = None
    started: list[Row] = field(default_factory=list)
    lost: list[Row] = field(default_factory=list)
    epochs: list[Row] = field(default_factory=list)
    decisions: list[Row] = field(default_factory=list)
    checkpoint: Row | None = None
    status: str | None = None
    stop_reason: str | None = None
    error: str | None = None
    ended_time: float | None = None
    ended_after: float | None = None  # seconds of its role, and of rescue, as `History.seconds` counts them
    _lost_before: int = 0
    _places: dict[str, Place] = field(default_factory=dict, init=False, repr=False, compare=False)  # once it has ended

    @property
    def live(self) -> bool:
        """Whether the trial still has to run, or runs."""
        return self.status is None

    @property
    def workers(self) -> int:
        """How many processes train it together."""
        return int(self.work.get("workers", 1))

    @property
    def failed(self) -> bool:
        """Whether the trial ended without having been trained as it should: diverged, out of memory, lost, ..."""
        return self.status not in (None, "completed", "stopped")

    def losses(self, *causes: str) -> int:
        """Return how many processes this opening of the trial has cost, of all causes or of some, as charged."""
        return sum(row["charged"] and row["cause"] in (causes or LOSSES) for row in self.lost[self._lost_before :])

    @property
    def shared_losses(self) -> int:
        """How many processes this opening of the trial has lost because others beside it took memory too."""
        return sum(row.get("shared", False) for row in self.lost[self._lost_before :])

    @property
    def micro_batch_divisor(self) -> int:
        """In how many parts each of its batches is computed: 2 once it has run out of memory, with none beside it."""
        return 2 if any(row["cause"] == "out_of_memory" and row["charged"] for row in self.lost) else 1

    def reopen(self) -> None:
        """Make it a running trial again, as if it had not ended; what it was charged with before is forgiven."""
        self.reopened += 1
        self._lost_before = len(self.lost)
        self.forget_place()
        self.status = self.stop_reason = self.error = self.ended_time = self.ended_after = None

    @property
    def rung(self) -> int:
        """The highest rung reached, in epochs; a trial that needed no cutoff to end has reached the top one.

        `completed` covers trials that ran all their epochs and those whose patience ran out: they converged, so
        they are compared at full training.
        """
        if self.status == "completed":
            return int(self.work["epochs"])
        return max((row["epoch"] for row in self.decisions if row.get("rung")), default=0)

    @property
    def ended_by(self) -> str | None:
        """What ended it: `epochs` (it ran them all), `rung`, `patience`, `budget`, or the status of a failed one.

        None while it is live. What had stopped a trial that was rescued afterwards does not count.
        """
        if self.live or self.failed:
            return self.status
        last = self.decisions[-1] if self.decisions else None
        stopped = last is not None and last["decision"] == "stop" and last["epoch"] == len(self.epochs)
        return str(last["cause"]) if last and stopped else "epochs"

    def best_epoch(self, metric: str) -> Row | None:
        """Return the epoch row with the best finite value of `metric`, the earliest of equals; None before any."""
        sign = METRICS[metric]
        rows = [row for row in self.epochs if row.get(metric) is not None and math.isfinite(row[metric])]
        return max(rows, key=lambda row: (sign * row[metric], -row["epoch"]), default=None)

    def place(self, metric: str) -> Place:
        """Return what `ranked` sorts by, the best highest. That of an ended trial is kept: it does not change."""
        if (known := self._places.get(metric)) is not None:
            return known
        best, place = self.best_epoch(metric), (False, self.rung, 0.0, 0.0, -self.trial)
        if best is not None and not self.failed:
            loss = math.inf if best["val_loss"] is None else best["val_loss"]
            place = (True, self.rung, METRICS[metric] * best[metric], -loss, -self.trial)
        if not self.live:
            self._places[metric] = place
        return place

    def forget_place(self) -> None:
        """Let its place be found anew: something was added to it."""
        self._places.clear()

    def seconds(self) -> float:
        """Return the seconds its epochs took, training and validation."""
        return float(sum(row["seconds"] for row in self.epochs))

    def epoch_seconds(self) -> list[float]:
        """Return the seconds of each epoch; of those on a share of the images, what all of them would have taken."""
        epochs, share = self.work.get("grace", (0, 1.0))
        return [row["seconds"] / (share if row["epoch"] <= epochs else 1.0) for row in self.epochs]


def ranked(trials: Iterable[TrialRecord], metric: str) -> list[TrialRecord]:
    """Return trials best first: by highest rung reached, then by their best value of `metric`, then by the lower
    validation loss at that epoch.

    Trials that failed come last (`diverged`, `out_of_memory`, `infeasible`, `data_error`, `lost`), and so do those
    without a finished epoch.
    """
    return sorted(trials, key=lambda record: record.place(metric), reverse=True)

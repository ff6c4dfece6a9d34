"""What the rows of a ledger add up to: every trial, its epochs, its decisions and how it ended.

`History.apply` folds one row in. It is used for the live run and for a replay alike, so the state after a crash
is the state before it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from sys import intern
from typing import Any

Row = dict[str, Any]

# What a higher value of a metric means: +1 better, -1 worse.
METRICS = {"val_accuracy": 1, "val_loss": -1, "val_balanced_accuracy": 1, "val_macro_f1": 1}

SHORT = 40  # characters of a text that may well come again, such as a status

# Why a worker process ended without an outcome of its trial. A retired one had done nothing to the next trial.
LOSSES = ("died", "hung", "out_of_memory", "retired")


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
    ended_after: float | None = None  # seconds of its role, as `History.seconds` counts them
    _lost_before: int = 0

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
    def micro_batch_divisor(self) -> int:
        """In how many parts each of its batches is computed: 2 once it has run out of memory."""
        return 2 if any(row["cause"] == "out_of_memory" for row in self.lost) else 1

    @property
    def runs_alone(self) -> bool:
        """Whether no other trial may run beside it: its host was short of memory."""
        return any(row["alone"] for row in self.lost)

    def reopen(self) -> None:
        """Make it a running trial again, as if it had not ended; what it was charged with before is forgiven."""
        self.reopened += 1
        self._lost_before = len(self.lost)
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

    def seconds(self) -> float:
        """Return the seconds its epochs took, training and validation."""
        return float(sum(row["seconds"] for row in self.epochs))


def ranked(trials: Iterable[TrialRecord], metric: str) -> list[TrialRecord]:
    """Return trials best first: by highest rung reached, then by their best value of `metric`, then by the lower
    validation loss at that epoch.

    Trials that failed come last (`diverged`, `out_of_memory`, `infeasible`, `data_error`, `lost`), and so do those
    without a finished epoch.
    """
    sign = METRICS[metric]

    def key(record: TrialRecord) -> tuple[bool, int, float, float, int]:
        best = record.best_epoch(metric)
        if best is None or record.failed:
            return False, record.rung, 0.0, 0.0, -record.trial
        loss = math.inf if best["val_loss"] is None else best["val_loss"]
        return True, record.rung, sign * best[metric], -loss, -record.trial

    return sorted(trials, key=key, reverse=True)


def _shared(row: Mapping[str, Any]) -> Row:
    """Return a row whose names are the same objects as in all others.

    JSON makes new ones for each line: a trial of ten epochs took 23 KB of memory, and takes 10.
    """
    return {
        intern(name): intern(value) if type(value) is str and len(value) < SHORT else value
        for name, value in row.items()
    }


class History:
    """The state of an experiment, folded from ledger rows one at a time."""

    def __init__(self) -> None:
        self.trials: dict[int, TrialRecord] = {}
        self.last_seq = 0
        self.incarnation = 0
        self.experiment: Row | None = None
        self.calibrated: Row | None = None
        self.trials_wanted: int | None = None
        self.rejected: list[Row] = []
        self.chosen: Row | None = None
        self.tests_opened: list[Row] = []
        self.interruptions: list[Row] = []
        self.resumes: list[Row] = []
        self.seconds: Counter[str] = Counter()  # by role: time between rows of its trials, without start-up
        self._last: tuple[int, str | None, float] = (0, None, 0.0)
        self._fold: dict[str, Callable[[Row], None]] = {
            "experiment": self._experiment,
            "calibrated": self._calibrated,
            "extended": self._extended,
            "proposed": self._proposed,
            "rejected": self.rejected.append,
            "started": self._started,
            "lost": self._lost,
            "epoch": self._epoch,
            "checkpoint": self._checkpoint,
            "decision": self._decision,
            "ended": self._ended,
            "reopened": lambda row: self.trials[row["trial"]].reopen(),
            "interrupted": self.interruptions.append,
            "resumed": self.resumes.append,
            "chosen": self._chosen,
            "test_opened": self.tests_opened.append,
        }

    def apply(self, row: Row) -> None:
        """Fold one row in."""
        row = _shared(row)
        self.last_seq = row["seq"]
        self.incarnation = max(self.incarnation, row["incarnation"])
        if fold := self._fold.get(row["event"]):
            fold(row)
        incarnation, before, time = self._last
        role = self.trials[row["trial"]].role if row.get("trial") in self.trials else None
        if role and (incarnation, before) == (row["incarnation"], role):
            self.seconds[role] += max(0.0, row["time"] - time)
        if role and row["event"] == "ended":
            self.trials[row["trial"]].ended_after = self.seconds[role]
        self._last = row["incarnation"], role, row["time"]

    def of_role(self, *roles: str) -> list[TrialRecord]:
        """Return the trials of some roles (`search`, `retrain`, `final`, `reproduce`), in order of their number."""
        return [record for record in self.trials.values() if record.role in roles]

    def next_trial(self) -> int:
        """Return the number that the next proposed trial gets."""
        return next(reversed(self.trials), -1) + 1  # they come in order

    def accepts(self, trial: int, attempt: int, epoch: int) -> bool:
        """Whether an epoch result is news: of the newest attempt of a live trial, and the next one in order."""
        record = self.trials[trial]
        return record.live and attempt == record.attempts and epoch == len(record.epochs) + 1

    def _experiment(self, row: Row) -> None:
        self.experiment = row
        self.trials_wanted = row.get("trials")

    def _calibrated(self, row: Row) -> None:
        self.calibrated = row

    def _extended(self, row: Row) -> None:
        self.trials_wanted = row["trials"]

    def _proposed(self, row: Row) -> None:
        self.trials[row["trial"]] = TrialRecord(
            trial=row["trial"],
            role=row["role"],
            architecture=row["architecture"],
            config=_shared(row["config"]),
            seed=row["seed"],
            work=row["work"],
            method=row["method"],
            proposed_time=row["time"],
        )

    def _started(self, row: Row) -> None:
        record = self.trials[row["trial"]]
        record.attempts = row["attempt"]
        record.started.append(row)
        record.n_params = row.get("n_params", record.n_params)

    def _lost(self, row: Row) -> None:
        record = self.trials[row["trial"]]
        record.attempts = max(record.attempts, row["attempt"])
        record.lost.append(row)

    def _epoch(self, row: Row) -> None:
        if self.accepts(row["trial"], row["attempt"], row["epoch"]):
            self.trials[row["trial"]].epochs.append(row)

    def _checkpoint(self, row: Row) -> None:
        self.trials[row["trial"]].checkpoint = row

    def _decision(self, row: Row) -> None:
        self.trials[row["trial"]].decisions.append(row)

    def _ended(self, row: Row) -> None:
        record = self.trials[row["trial"]]
        record.status, record.stop_reason = row["status"], row.get("stop_reason")
        record.error, record.ended_time = row.get("error"), row["time"]

    def _chosen(self, row: Row) -> None:
        self.chosen = row

"""The dispatcher: hands trials out, folds what comes back into the ledger, decides, and counts attempts.

It holds the whole logic of a launch and knows no Ray. Nothing else writes rows of trials.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cluster.history import History, Row, TrialRecord
from cluster.ledger import Ledger
from cluster.storage import checkpoint_folder
from foundation import count

MAX_LOSSES = 3  # interruptions by the user do not count


@dataclass(frozen=True)
class Proposal:
    """One trial to run: what it is for, its configuration and seed, and what the trainable must do with them.

    `method` is what proposed it (a search method, `baseline`, `analysis`). `work` holds `epochs` (how many at most)
    and whatever else the trainable reads; `rejected` the configurations that were refused before this one, as the
    fields of `rejected` rows.
    """

    role: str
    architecture: str
    config: dict[str, Any]
    seed: int
    work: dict[str, Any]
    method: str
    rejected: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Decision:
    """Whether a trial goes on after an epoch, and the sentence that says why; kept when `rung` or when it stops.

    `status` is what a stopped trial becomes: `stopped` (a cutoff, the time budget) or `completed` (converged).
    """

    stop: bool
    sentence: str
    rung: bool = False
    status: str = "stopped"


class Observer(Protocol):
    """Sees every row after it has been written: the live table, TensorBoard."""

    def observe(self, row: Row, history: History) -> None:
        """Take note of one row; the history already holds it."""

    def close(self) -> None:
        """Finish: nothing more will be observed."""


class Dispatcher:
    """Hands out trials of some roles, and turns what comes back into ledger rows.

    `next_work(history)` proposes the next new trial, or None when none is wanted now. `decide(history, record, row)`
    judges a trial after each epoch. Trials that an earlier run left unfinished are handed out first.
    """

    def __init__(
        self,
        ledger: Ledger,
        roles: Sequence[str],
        next_work: Callable[[History], Proposal | None],
        decide: Callable[[History, TrialRecord, Row], Decision | None],
        observers: Iterable[Observer] = (),
        budget_seconds: float | None = None,
    ) -> None:
        self.ledger, self.history = ledger, ledger.history
        self.next_work, self.decide = next_work, decide
        self.observers = list(observers)
        self.running: dict[str, int] = {}  # Ray's trial id -> our trial
        self.attempts: dict[str, int] = {}  # Ray's trial id -> our attempt
        self.waiting = [record.trial for record in self.history.of_role(*roles) if record.live]
        self.deadline = None if budget_seconds is None else time.monotonic() + budget_seconds
        self.interrupted = False
        for trial in list(self.waiting):
            self._settle(self.history.trials[trial])

    def write(self, event: str, **fields: Any) -> Row:
        """Append a row and show it to the observers."""
        row = self.ledger.append(event, **fields)
        for observer in self.observers:
            observer.observe(row, self.history)
        return row

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def hand_out(self, key: str) -> dict[str, Any] | None:
        """Return what the worker needs for the next trial, or None when there is nothing to hand out now."""
        if self.interrupted:
            return None
        if self.waiting:
            trial = self.waiting.pop(0)
        elif self.out_of_time or (proposal := self.next_work(self.history)) is None:
            return None
        else:
            trial = self._propose(proposal)
        record = self.history.trials[trial]
        self.running[key], self.attempts[key] = trial, record.attempts + 1
        return {
            "trial": trial,
            "attempt": record.attempts + 1,
            "architecture": record.architecture,
            "seed": record.seed,
            "config": record.config,
            "work": record.work,
            "checkpoints": str(self._checkpoints(trial)),
        }

    def report(self, key: str, report: dict[str, Any]) -> bool:
        """Fold one report of a worker in; return whether the trial goes on."""
        trial = self.running[key]
        record = self.history.trials[trial]
        if report["kind"] == "started":
            fields = {name: value for name, value in report.items() if name not in ("kind", "epochs")}
            self.write("started", trial=trial, **fields)
            for epoch in report["epochs"]:  # what the checkpoint knew and the ledger had lost
                self._epoch(record, report["attempt"], epoch)
            return record.live and not self.interrupted
        if report["kind"] == "failed":
            self._end(record, report["status"], error=report["error"])
            return False
        if report["kind"] == "epoch":
            self._epoch(record, report["attempt"], report["epoch"], report.get("failed"))
            if record.live and (checkpoint := report.get("checkpoint")):
                self.write("checkpoint", trial=trial, attempt=report["attempt"], **checkpoint)
        return record.live and not self.interrupted

    def finished(self, key: str) -> None:
        """Note that Ray has let go of a trial without an error."""
        self.running.pop(key, None)
        self.attempts.pop(key, None)

    def lost(self, key: str, error: str) -> None:
        """Note that a trial's process ended without an outcome: hand it out again, unless it was the third time.

        Running out of device memory is an outcome: the same configuration would run out again.
        """
        attempt, record = self.attempts.pop(key), self.history.trials[self.running.pop(key)]
        if not record.live:
            return
        self.write("lost", trial=record.trial, attempt=attempt, error=error)
        if "OutOfMemoryError" in error:
            self._end(record, "out_of_memory", error=error)
        elif record.losses >= MAX_LOSSES:
            self._end(record, "lost", error=f"{record.losses} attempts failed, the last one with: {error}")
        else:
            self.waiting.append(record.trial)

    def _propose(self, proposal: Proposal) -> int:
        trial = self.history.next_trial()
        for rejected in proposal.rejected:
            self.write("rejected", trial=trial, **rejected)
        self.write(
            "proposed",
            trial=trial,
            role=proposal.role,
            architecture=proposal.architecture,
            config=proposal.config,
            seed=proposal.seed,
            work=proposal.work,
            method=proposal.method,
            draw=len(proposal.rejected),
            seen=self.history.last_seq,
        )
        return trial

    def _epoch(
        self, record: TrialRecord, attempt: int, epoch: dict[str, Any], failed: dict[str, str] | None = None
    ) -> None:
        if not self.history.accepts(record.trial, attempt, epoch["epoch"]):
            return
        fields = {"failed": failed} if failed else {}
        row = self.write("epoch", trial=record.trial, attempt=attempt, **epoch, **fields)
        self._judge(record, row)

    def _settle(self, record: TrialRecord) -> None:
        """Judge the last epoch of an unfinished trial again: a crash may have come between it and its outcome."""
        if not record.epochs:
            return
        row = record.epochs[-1]
        stopping = [kept for kept in record.decisions if kept["decision"] == "stop"]
        if stopping:
            self._end(record, stopping[-1]["status"], stop_reason=stopping[-1]["sentence"])
        elif all(kept["epoch"] != row["epoch"] for kept in record.decisions):
            self._judge(record, row)
        elif len(record.epochs) >= record.work["epochs"]:
            self._complete(record)
        if not record.live:
            self.waiting.remove(record.trial)

    def _judge(self, record: TrialRecord, row: Row) -> None:
        if failed := row.get("failed"):
            self._end(record, failed["status"], error=failed["error"])
            return
        decision = self.decide(self.history, record, row)
        if self.out_of_time and not (decision and decision.stop) and len(record.epochs) < record.work["epochs"]:
            decision = Decision(True, f"stopped at epoch {row['epoch']}: the time budget is used up")
        if decision and (decision.stop or decision.rung):
            verdict = "stop" if decision.stop else "continue"
            kept = {"sentence": decision.sentence, "rung": decision.rung, "status": decision.status}
            self.write("decision", trial=record.trial, epoch=row["epoch"], decision=verdict, **kept)
        if decision and decision.stop:
            self._end(record, decision.status, stop_reason=decision.sentence)
        elif len(record.epochs) >= record.work["epochs"]:
            self._complete(record)

    def _complete(self, record: TrialRecord) -> None:
        self._end(record, "completed", stop_reason=f"all {count(record.work['epochs'], 'epoch')}")

    def _end(self, record: TrialRecord, status: str, stop_reason: str | None = None, error: str | None = None) -> None:
        self.write("ended", trial=record.trial, status=status, stop_reason=stop_reason, error=error)
        if not record.work.get("keep_checkpoint"):
            shutil.rmtree(self._checkpoints(record.trial), ignore_errors=True)

    def _checkpoints(self, trial: int) -> Path:
        return checkpoint_folder(self.ledger.path.parent, trial)

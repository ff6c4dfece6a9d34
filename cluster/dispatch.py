"""The dispatcher: hands trials out, folds what comes back into the ledger, decides, and counts attempts.

It holds the whole logic of a launch and knows no Ray. Nothing else writes rows of trials.
"""

import bisect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from cluster.budget import Budget
from cluster.history import History
from cluster.ledger import Ledger
from cluster.proposal import Decision, Proposal
from cluster.record import NOT_CHARGED, Row, TrialRecord
from cluster.retention import Retention
from cluster.shares import Sharing, Shortage
from cluster.storage import checkpoint_folder
from foundation import HaltError, count

# How many processes one opening of a trial may cost; interruptions by the user do not count.
MOST_LOSSES = {"died": 3, "hung": 2, "out_of_memory": 2}
STATUS_OF = {"died": "lost", "hung": "lost", "out_of_memory": "out_of_memory"}
MOST_FAILURES = 3  # trials in a row that failed for no reason of their own: something is wrong with the machine


class Observer(Protocol):
    """Sees every row after it has been written: the live table, TensorBoard."""

    def observe(self, row: Row, history: History) -> None:
        """Take note of one row; the history already holds it."""

    def close(self) -> None:
        """Finish: nothing more will be observed."""


class Dispatcher:
    """Hands out trials of some roles, and turns what comes back into ledger rows.

    `next_work(history)` proposes the next new trial, or None when none is wanted now. `decide(history, record, row)`
    judges a trial after each epoch. Trials that an earlier run left unfinished are handed out first, if so many
    `workers` train them together. With `in_order`, for one worker, a trial that another process must take up again
    comes before later ones, so that the order of results is that of a run in which nothing died.

    `halt` is what keeps the launch from going on: a ledger that cannot be written, or trials that all fail. `sharing`
    knows the slots, once the launch has told it where the trials run.
    """

    def __init__(
        self,
        ledger: Ledger,
        roles: Sequence[str],
        next_work: Callable[[History], Proposal | None],
        decide: Callable[[History, TrialRecord, Row], Decision | None],
        observers: Iterable[Observer] = (),
        budget_seconds: float | None = None,
        *,
        metric: str = "val_accuracy",
        in_order: bool = False,
        workers: int = 1,
    ) -> None:
        self.ledger, self.history = ledger, ledger.history
        self.next_work, self.decide = next_work, decide
        self.observers = list(observers)
        self.in_order = in_order
        self.sharing = Sharing()
        self.running: dict[str, int] = {}  # Ray's trial id -> our trial
        self.attempts: dict[str, int] = {}  # Ray's trial id -> our attempt
        self.beats: dict[str, Row] = {}  # Ray's trial id -> its worker's last row
        self.hung: dict[str, str] = {}  # Ray's trial id -> why its worker was ended
        records = self.history.of_role(*roles)
        self.waiting = [record.trial for record in records if record.live and record.workers == workers]
        self.budget = Budget(self.history, roles[0], budget_seconds)
        self.interrupted = False
        self.halt: Exception | None = None
        self.wake: Callable[[], None] = lambda: None  # called on a halt: whoever runs the trials looks at it now
        self._failures = 0
        self._retention = Retention(ledger.path.parent, self.history, metric)
        for trial in list(self.waiting):
            self._settle(self.history.trials[trial])

    def write(self, event: str, **fields: Any) -> Row:
        """Append a row and show it to the observers."""
        row = self.ledger.append(event, **fields)
        self.budget.row_written()
        for observer in self.observers:
            observer.observe(row, self.history)
        return row

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return self.budget.used_up

    @property
    def stopping(self) -> bool:
        """Whether all trials are to end now, for a reason that is not theirs."""
        return self.interrupted or self.halt is not None

    def close(self) -> None:
        """End the launch: nothing runs any more."""
        self._retention.close()
        for observer in self.observers:
            observer.close()

    def hand_out(self, key: str) -> dict[str, Any] | None:
        """Return what the worker needs for the next trial, or None when there is nothing to hand out now."""
        trial = None if self.stopping else self._next()
        if trial is None:
            return None
        record = self.history.trials[trial]
        self.running[key], self.attempts[key] = trial, record.attempts + 1
        self.sharing.take(key)
        return {
            "trial": trial,
            "attempt": record.attempts + 1,
            "architecture": record.architecture,
            "seed": record.seed,
            "config": record.config,
            "work": record.work,
            "micro_batch_divisor": record.micro_batch_divisor,
            "checkpoints": str(checkpoint_folder(self.ledger.path.parent, trial)),
        }

    def report(self, key: str, report: dict[str, Any]) -> bool:
        """Fold one report of a worker in; return whether the trial goes on."""
        trial = self.running[key]
        record = self.history.trials[trial]
        if self.halt:
            return False
        if report["kind"] == "unfit":  # nobody can train there: this trial goes to another host, and so do all others
            self.sharing.shun(report["node"], report["error"])
            self.lost(key, report["error"], "unfit")
            return False
        if report["kind"] == "started" and self.in_order and self.waiting and self.waiting[0] < trial:
            bisect.insort(self.waiting, trial)  # its attempt has not begun: it comes after the one that was lost
            return False
        try:
            self._fold(key, record, report)
        except OSError as error:
            self._halt(error)
        return record.live and not self.stopping

    def finished(self, key: str) -> None:
        """Note that Ray has let go of a trial without an error."""
        self.sharing.drop(key)
        for known in (self.running, self.attempts, self.beats, self.hung):
            known.pop(key, None)

    def lost(self, key: str, error: str, cause: str = "died") -> None:
        """Note that a trial's process ended without an outcome: hand it out again, unless that was its last chance.

        `cause` is one of `record.LOSSES`. A trial that ran out of memory with others beside it is not charged with
        that: the slot grows. Else it is computed in smaller parts the next time, and where that was its host's
        memory, with no other beside it.
        """
        if key not in self.running:
            return
        attempt, record, hung = self.attempts[key], self.history.trials[self.running[key]], self.hung.get(key)
        goes_on, short = record.live and not self.halt, Shortage(False, False)
        if hung:
            error, cause = hung, "hung"
        if goes_on and cause == "out_of_memory":
            short = self.sharing.shortage(key, record, self.beats, error)
        self.finished(key)
        if not goes_on:
            return
        try:
            charged = cause not in NOT_CHARGED and not short.shared
            fields = {"error": error, "cause": cause, "charged": charged}
            fields |= {"alone": short.alone, "shared": short.shared}
            self.write("lost", trial=record.trial, attempt=attempt, **fields)
            if short.growth:
                self.write("slot_grown", trial=record.trial, attempt=attempt, **short.growth)
            self._again_or_end(record, error)
        except OSError as failed:
            self._halt(failed)

    def _again_or_end(self, record: TrialRecord, error: str) -> None:
        for cause, most in MOST_LOSSES.items():
            if (times := record.losses(cause)) >= most:
                why = f"{count(times, 'attempt')} failed, the last one with: {error}"
                self._end(record, STATUS_OF[cause], error=why)
                return
        if record.losses() >= MOST_LOSSES["died"]:
            self._end(record, "lost", error=f"{count(record.losses(), 'attempt')} failed, the last one with: {error}")
        else:
            bisect.insort(self.waiting, record.trial)

    def _next(self) -> int | None:
        """Return the trial to hand out now, proposing one if none waits."""
        if not self.history.alone.isdisjoint(self.running.values()):
            return None
        if self.waiting:
            if self.waiting[0] in self.history.alone and self.running:
                return None  # the others come to their end first
            return self.waiting.pop(0)
        if self.out_of_time or (proposal := self.next_work(self.history)) is None:
            return None
        return self._propose(proposal)

    def _propose(self, proposal: Proposal) -> int | None:
        trial = self.history.next_trial()
        try:
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
        except OSError as error:
            self._halt(error)
            return None
        return trial

    def _fold(self, key: str, record: TrialRecord, report: dict[str, Any]) -> None:
        trial, attempt = record.trial, self.attempts[key]
        match report["kind"]:
            case "started":
                fields = {name: value for name, value in report.items() if name not in ("kind", "epochs")}
                self.beats[key] = self.write("started", trial=trial, **fields)
                for epoch in report["epochs"]:  # what the checkpoint knew and the ledger had lost
                    self._epoch(record, attempt, epoch)
            case "failed":
                self._end(record, report["status"], error=report["error"])
            case "epoch":
                self.beats[key] = self.beats.get(key, {}) | {"epoch": report["epoch"]["epoch"]}
                self._epoch(record, attempt, report["epoch"], report.get("failed"))
                for saved in report.get("checkpoints", ()):
                    self.write("checkpoint", trial=trial, attempt=attempt, **saved)
        if failed := report.get("unwritten"):
            raise OSError(failed["errno"], failed["strerror"], failed["path"])

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
        stopping = [kept for kept in record.decisions if kept["decision"] == "stop" and not record.reopened]
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
        last = len(record.epochs) >= record.work["epochs"]
        decision = None if record.reopened else self.decide(self.history, record, row)
        if self.out_of_time and not (record.reopened or last or (decision and decision.stop)):
            sentence = f"stopped at epoch {row['epoch']}: the time budget is used up"
            decision = Decision(True, sentence, rung=bool(decision and decision.rung), cause="budget")
        if decision and (decision.stop or decision.rung):
            verdict = "stop" if decision.stop else "continue"
            kept = {"sentence": decision.sentence, "rung": decision.rung, "status": decision.status}
            self.write(
                "decision", trial=record.trial, epoch=row["epoch"], decision=verdict, cause=decision.cause, **kept
            )
        if decision and decision.stop:
            self._end(record, decision.status, stop_reason=decision.sentence)
        elif last:
            self._complete(record)

    def _complete(self, record: TrialRecord) -> None:
        self._end(record, "completed", stop_reason=f"all {count(record.work['epochs'], 'epoch')}")

    def _end(self, record: TrialRecord, status: str, stop_reason: str | None = None, error: str | None = None) -> None:
        self.write("ended", trial=record.trial, status=status, stop_reason=stop_reason, error=error)
        self._retention.ended(record)
        self._failures = self._failures + 1 if status in ("lost", "data_error") else 0
        if self._failures >= MOST_FAILURES:
            why = f"{count(MOST_FAILURES, 'trial')} in a row could not be trained, the last one because: {error}"
            self._halt(HaltError(why))

    def _halt(self, error: Exception) -> None:
        self.halt = error
        self.wake()

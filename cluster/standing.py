"""Where the trials of some roles stand, in numbers: what is done, what is best, what runs."""

from collections.abc import Sequence

from cluster.history import History
from cluster.record import Row, TrialRecord, ranked

BEST_SHOWN = 5


class Standing:
    """Where the trials of some roles stand, kept up row by row at the same small cost however many trials there are.

    `trials` are all of them, `best` the five best by `metric`, best first, `failures` those that failed, in the
    order in which they did, `at_work` those that a worker has, by number; `ended` and `epochs` are counts.
    """

    def __init__(self, history: History, roles: Sequence[str], metric: str) -> None:
        self.metric = metric
        records = history.of_role(*roles)
        self.trials = records
        self.ended = sum(not record.live for record in records)
        self.epochs = sum(len(record.epochs) for record in records)
        self.failures = sorted(
            (record for record in records if record.failed), key=lambda record: record.ended_time or 0.0
        )
        self.best = self._best_of(records)
        self.at_work: dict[int, TrialRecord] = {}

    def take(self, row: Row, record: TrialRecord) -> None:
        """Keep up with one row of a trial, which the history already holds."""
        event = row["event"]
        if event == "proposed":
            self.trials.append(record)
        elif event == "epoch":
            self.epochs += 1
        elif event == "ended":
            self.ended += 1
            if record.failed:
                self.failures.append(record)
        if event in ("epoch", "decision", "ended"):
            others = [other for other in self.best if other is not record]
            # Only the trial of the row has moved, and only a failed one moves down: then the sixth moves up.
            fell = record.failed and len(others) < len(self.best)
            self.best = self._best_of(self.trials if fell else [*others, record])

    def work_on(self, row: Row, record: TrialRecord) -> None:
        """Note which trials have a worker: from when they are handed out until they end."""
        if row["event"] in ("proposed", "started"):
            self.at_work[record.trial] = record
        elif row["event"] == "ended":
            self.at_work.pop(record.trial, None)

    def _best_of(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        shown = [record for record in records if not record.failed and record.best_epoch(self.metric)]
        return ranked(shown, self.metric)[:BEST_SHOWN]

"""Where the trials of some roles stand, in numbers: what is done, what is best, what runs, and the time left."""

import heapq
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.history import History, Row, TrialRecord, ranked

BEST_SHOWN = 5


@dataclass(frozen=True)
class Span:
    """A figure that is not known yet: its median, and the interval that it is in 9 times of 10."""

    middle: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Span":
        """Return the span of what was found when it was tried many times."""
        ordered = sorted(values)
        low, middle, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.5, 0.95))
        return Span(middle, low, high)


def time_left_seconds(
    history: History, roles: Sequence[str], wanted: int | None, slots: int, now: float
) -> float | None:
    """Return an estimate of the seconds until `wanted` trials of some roles have ended, or None when nothing is known.

    Each trial to come takes as many epochs as the ended ones did on average, at its architecture's median seconds
    per epoch; a running one as many as those that ran longer than it has. While none ended, that is all epochs.
    `slots` trials run side by side, and none is faster than itself. `now` is in seconds since 1970.
    """
    records = history.of_role(*roles)
    lengths = [len(record.epochs) for record in records if not record.live]
    if wanted is not None and len(lengths) >= wanted:
        return 0.0
    pace = _median_epoch_seconds(records)
    if wanted is None or not pace:
        return None
    usual = statistics.fmean(pace.values())
    seconds = []
    for record in records:
        if record.live:
            since = now - (record.epochs[-1]["time"] if record.epochs else record.proposed_time)
            epoch_seconds = pace.get(record.architecture, usual)
            to_go = _expected_epochs(lengths, len(record.epochs), record.work["epochs"]) - len(record.epochs)
            seconds.append(max(0.0, to_go * epoch_seconds - min(max(0.0, since), epoch_seconds)))
    planned = max(record.work["epochs"] for record in records)
    seconds += [_expected_epochs(lengths, -1, planned) * usual] * (wanted - len(records))
    return max(sum(seconds) / slots, max(seconds, default=0.0))


def timetable(seconds: Iterable[float], slots: int) -> list[tuple[float, float]]:
    """Return when trials of these lengths begin and end, each in its turn as soon as one of the slots is free."""
    free, times = [0.0] * slots, []
    for length in seconds:
        times.append((free[0], free[0] + length))
        heapq.heapreplace(free, free[0] + length)
    return times


def _median_epoch_seconds(records: Sequence[TrialRecord]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}
    for record in records:
        if record.epochs:
            seconds.setdefault(record.architecture, []).extend(row["seconds"] for row in record.epochs)
    return {architecture: statistics.median(values) for architecture, values in seconds.items()}


def _expected_epochs(lengths: Sequence[int], done: int, planned: int) -> float:
    longer = [length for length in lengths if length > done]
    return statistics.fmean(longer) if longer else planned


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

"""Where the trials of some roles stand, in numbers: what is done, what is best, what runs, and the time left."""

import heapq
import statistics
from bisect import insort
from collections import Counter
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


def timetable(seconds: Iterable[float], slots: int) -> list[tuple[float, float]]:
    """Return when trials of these lengths begin and end, each in its turn as soon as one of the slots is free."""
    free, times = [0.0] * slots, []
    for length in seconds:
        times.append((free[0], free[0] + length))
        heapq.heapreplace(free, free[0] + length)
    return times


class TimeLeft:
    """The time until all trials of some roles have ended, from figures that are kept up row by row: an estimate costs
    what the running trials are many, however many have ended.
    """

    def __init__(self, history: History, roles: Sequence[str]) -> None:
        self._seconds: dict[str, list[float]] = {}  # of the epochs of each architecture, sorted
        self._lengths: Counter[int] = Counter()  # how many epochs the ended trials had
        self._live: dict[int, TrialRecord] = {}
        self._begun = self._planned = 0
        for record in history.of_role(*roles):
            self._begin(record)
            self._seconds.setdefault(record.architecture, []).extend(row["seconds"] for row in record.epochs)
            if not record.live:
                self._end(record)
        for values in self._seconds.values():
            values.sort()

    def take(self, row: Row, record: TrialRecord) -> None:
        """Keep up with one row of a trial, which the history already holds."""
        match row["event"]:
            case "proposed":
                self._begin(record)
            case "epoch":
                insort(self._seconds.setdefault(record.architecture, []), row["seconds"])
            case "ended":
                self._end(record)

    def _begin(self, record: TrialRecord) -> None:
        self._begun += 1
        self._planned = max(self._planned, record.work["epochs"])
        self._live[record.trial] = record

    def _end(self, record: TrialRecord) -> None:
        del self._live[record.trial]
        self._lengths[len(record.epochs)] += 1

    def seconds(self, wanted: int | None, slots: int, now: float) -> float | None:
        """Return an estimate of the seconds until `wanted` trials have ended, or None when nothing is known.

        Each trial to come takes as many epochs as the ended ones did on average, at its architecture's median seconds
        per epoch; a running one as many as those that ran longer than it has. While none ended, that is all epochs.
        `slots` trials run side by side, and none is faster than itself. `now` is in seconds since 1970.
        """
        if wanted is not None and self._lengths.total() >= wanted:
            return 0.0
        pace = {name: _median(values) for name, values in self._seconds.items() if values}
        if wanted is None or not pace:
            return None
        usual = statistics.fmean(pace.values())
        longer = {
            done: self._mean_longer(done) for done in {len(record.epochs) for record in self._live.values()} | {-1}
        }
        seconds = []
        for record in self._live.values():
            done, since = (
                len(record.epochs),
                now - (record.epochs[-1]["time"] if record.epochs else record.proposed_time),
            )
            epoch_seconds = pace.get(record.architecture, usual)
            to_go = (longer[done] or record.work["epochs"]) - done
            seconds.append(max(0.0, to_go * epoch_seconds - min(max(0.0, since), epoch_seconds)))
        to_come = max(0, wanted - self._begun)
        each = (self._planned if longer[-1] is None else longer[-1]) * usual if to_come else 0.0
        return max((sum(seconds) + to_come * each) / slots, max(seconds, default=0.0), each)

    def _mean_longer(self, done: int) -> float | None:
        """Return how many epochs the ended trials had that had more than so many; None where none had."""
        longer = {length: times for length, times in self._lengths.items() if length > done}
        return sum(length * times for length, times in longer.items()) / sum(longer.values()) if longer else None


def _median(ordered: Sequence[float]) -> float:
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


class Standing:
    """Where the trials of some roles stand, kept up row by row at the same small cost however many trials there are.

    `trials` are all of them, `best` the five best by `metric`, best first, `failures` those that failed, in the
    order in which they did, `at_work` those that a worker has, by number; `ended` and `epochs` are counts. `time_left`
    estimates the rest.
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
        self.time_left = TimeLeft(history, roles)

    def take(self, row: Row, record: TrialRecord) -> None:
        """Keep up with one row of a trial, which the history already holds."""
        self.time_left.take(row, record)
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

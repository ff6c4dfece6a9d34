"""What is to come, gone through on paper: how far trials get under rungs, and when so many of them will have ended."""

import heapq
import math
import random
import statistics
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cluster.arrivals import METRICS
from cluster.history import History
from cluster.record import TrialRecord

SIMULATIONS, SIMULATED_TRIALS = (10, 100), 10_000  # the fewest and the most; so many trials in all between them
# Of all paces together, as a share, and of a running trial's. More than machines are noisy: it stands for what the walk
# leaves out. With 0.1 the interval held at 46 of 63 moments of 13 real searches, with this at 58.
PACE_ERROR = 0.3
UNKNOWN_ERROR, KNOWN = 0.5, 3  # of an architecture's pace while fewer than so many of its trials have one
MOST_TO_COME = 1_000  # of more trials, the others are reckoned to take as long as these on average


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

    def less(self, seconds: float) -> "Span":
        """Return what is left of a time when so many seconds of it have passed."""
        return Span(*(max(0.0, each - seconds) for each in (self.middle, self.low, self.high)))


@dataclass(frozen=True)
class Stopping:
    """How a search stops trials: at these epochs, ascending, those below this quantile of who was there before. In the
    first epochs of `grace` they are trained on a share of the images."""

    levels: tuple[int, ...] = ()
    quantile: float = 0.0
    grace: tuple[int, float] = (0, 1.0)

    def whole_epochs(self, until: int, done: int = 0) -> float:
        """Return how many epochs on all images take as long as those after `done` up to `until`."""
        epochs, share = self.grace
        return until - done - (1 - share) * (min(until, epochs) - min(done, epochs))


class PaperRungs:
    """The rungs of one architecture on paper, where a trial is a score by chance: better at one rung, better at all."""

    def __init__(self, stopping: Stopping) -> None:
        self.quantile = stopping.quantile
        self.scores: dict[int, list[float]] = {level: [] for level in stopping.levels}

    def enter(self, score: float, epochs: int) -> None:
        """Note a trial that has got so far already, at each rung it was at."""
        for level, scores in self.scores.items():
            if level <= epochs:
                insort(scores, score)

    def epochs_run(self, epochs: int, score: float, done: int = 0) -> int:
        """Return how many of its epochs a trial of this score will run, and enter it at each rung that it gets to."""
        for level, before in self.scores.items():
            if done < level < epochs:
                stopped = bool(before) and score < self._cutoff(before)
                insort(before, score)
                if stopped:
                    return level
        return epochs

    def _cutoff(self, ordered: list[float]) -> float:
        """Return the quantile, interpolated linearly as NumPy's `percentile` does."""
        position = self.quantile * (len(ordered) - 1)
        low = int(position)
        above = ordered[min(low + 1, len(ordered) - 1)]
        return ordered[low] + (position - low) * (above - ordered[low])


def timetable(seconds: Iterable[float], slots: int) -> list[tuple[float, float]]:
    """Return when trials of these lengths begin and end, each in its turn as soon as one of the slots is free."""
    free, times = [0.0] * slots, []
    for length in seconds:
        times.append((free[0], free[0] + length))
        heapq.heapreplace(free, free[0] + length)
    return times


class Forecast:
    """The time until trials of some roles have ended, as their ledger rows tell it; `slots` run side by side.

    The rest is gone through on paper many times. A trial to come takes the pace of one of its architecture's so far,
    and its chance at the rungs; one that runs has its own pace, and its place among those at its last rung. Who
    passes all rungs runs as long as one that no rung has ended, or all its epochs.
    """

    def __init__(self, roles: Sequence[str], slots: int, metric: str, stopping: Stopping | None = None) -> None:
        self.roles, self.slots, self.metric, self.stopping = roles, slots, metric, stopping or Stopping()

    def time_left(self, history: History, wanted: int | None, now: float) -> Span | None:
        """Return the seconds until `wanted` trials have ended, or None while nothing is known.

        `now` is in seconds since 1970.
        """
        records = history.of_role(*self.roles)
        live = [record for record in records if record.live]
        if wanted is not None and len(records) - len(live) >= wanted:
            return Span(0.0, 0.0, 0.0)
        paces = _paces(records)
        if wanted is None or not paces:
            return None
        to_come = max(0, wanted - len(records))
        on_paper = len(live) + min(to_come, MOST_TO_COME)
        fewest, most = SIMULATIONS
        times = max(fewest, min(most, SIMULATED_TRIALS // max(1, on_paper)))
        walk = _Walk(self, records, live, paces, now)
        return Span.of([walk.seconds(to_come, random.Random(number)) for number in range(times)])

    def ranks(self, records: Sequence[TrialRecord]) -> dict[int, float]:
        """Return the scores of the trials of one architecture that were at a rung, evenly spread between 0 and 1.

        They are in the order of the first rung; those that were at the next one share their scores out anew by it.
        """
        sign = METRICS[self.metric]
        scores: dict[int, float] = {}
        for level in self.stopping.levels:
            there = [record for record in records if len(record.epochs) >= level]
            values = {record.trial: record.epochs[level - 1].get(self.metric) for record in there}
            found = {trial: sign * value for trial, value in values.items() if value is not None}
            known = sorted(scores[trial] for trial in found if trial in scores)
            if level == self.stopping.levels[0]:
                known = [(place + 0.5) / len(found) for place in range(len(found))]
            scores |= zip(sorted(found, key=lambda trial: (found[trial], trial)), known, strict=False)
        return scores


class _Walk:
    """The rest of a launch, ready to be gone through on paper any number of times."""

    def __init__(
        self,
        forecast: Forecast,
        records: Sequence[TrialRecord],
        live: Sequence[TrialRecord],
        paces: dict[str, list[float]],
        now: float,
    ) -> None:
        self.forecast, self.live, self.paces, self.now = forecast, live, paces, now
        self.every_pace = [pace for of_architecture in paces.values() for pace in of_architecture]
        self.planned = max(record.work["epochs"] for record in records)
        self.names = list(dict.fromkeys(record.architecture for record in records))
        self.of = {name: [record for record in records if record.architecture == name] for name in self.names}
        self.ranks = {name: forecast.ranks(of) for name, of in self.of.items()}
        self.errors = {name: _error_of_mean(paces.get(name, [])) for name in self.names}
        self.factors: dict[str, float] = {}
        self.own = {record.trial: statistics.median(record.epoch_seconds()) for record in live if record.epochs}
        self.outright = sorted(
            len(record.epochs) for record in records if not record.live and record.ended_by not in ("rung", "budget")
        )

    def seconds(self, to_come: int, rng: random.Random) -> float:
        """Return the seconds until all have ended, this time."""
        rungs = {name: self._rungs(name) for name in self.names}
        machine = rng.gauss(0, PACE_ERROR)
        self.factors = {name: math.exp(machine + rng.gauss(0, self.errors[name])) for name in self.names}
        lengths = [self._left_of(record, rungs[record.architecture], rng) for record in self.live]
        turns = sorted(self.names, key=lambda name: len(self.of[name]))
        ahead = min(to_come, MOST_TO_COME)
        for number in range(ahead):
            name = turns[number % len(turns)]
            runs = rungs[name].epochs_run(self._full(self.planned, 0, rng), rng.random())
            lengths.append(self.forecast.stopping.whole_epochs(runs) * self._pace(name, rng))
        end = max((end for _, end in timetable(lengths, self.forecast.slots)), default=0.0)
        if to_come > ahead:
            end += (to_come - ahead) * statistics.fmean(lengths[len(self.live) :]) / self.forecast.slots
        return end

    def _rungs(self, name: str) -> PaperRungs:
        rungs = PaperRungs(self.forecast.stopping)
        epochs = {record.trial: len(record.epochs) for record in self.of[name]}
        for trial, score in self.ranks[name].items():
            rungs.enter(score, epochs[trial])
        return rungs

    def _left_of(self, record: TrialRecord, rungs: PaperRungs, rng: random.Random) -> float:
        done = len(record.epochs)
        score = self.ranks[record.architecture].get(record.trial)
        most = self._full(record.work["epochs"], done, rng)
        runs = rungs.epochs_run(most, rng.random() if score is None else score, done)
        pace = self.own.get(record.trial) or self._pace(record.architecture, rng)
        pace *= math.exp(rng.gauss(0, PACE_ERROR))
        since = self.now - (record.epochs[-1]["time"] if record.epochs else record.proposed_time)
        return max(0.0, self.forecast.stopping.whole_epochs(runs, done) * pace - min(max(0.0, since), pace))

    def _full(self, planned: int, done: int, rng: random.Random) -> int:
        """Return the epochs of a trial that passes all rungs: as one that no rung has ended, or all; one more chance
        for all, so that a first one that diverged at once is not taken for the rule."""
        longer = [length for length in self.outright if done < length <= planned]
        return rng.choice([*longer, planned])

    def _pace(self, name: str, rng: random.Random) -> float:
        return self.factors[name] * rng.choice(self.paces.get(name) or self.every_pace)


def _paces(records: Sequence[TrialRecord]) -> dict[str, list[float]]:
    """Return the seconds per epoch of each trial that has any, the median of its epochs, by architecture."""
    paces: dict[str, list[float]] = {}
    for record in records:
        if record.epochs:
            paces.setdefault(record.architecture, []).append(statistics.median(record.epoch_seconds()))
    return paces


def _error_of_mean(paces: Sequence[float]) -> float:
    """Return the standard error of the logarithm of an architecture's pace, by those of its trials so far."""
    logarithms = [math.log(max(pace, 1e-6)) for pace in paces]
    if len(logarithms) < KNOWN:
        return UNKNOWN_ERROR / math.sqrt(1 + len(logarithms))
    return statistics.stdev(logarithms) / math.sqrt(len(logarithms))

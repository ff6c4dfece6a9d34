"""What configurations cost: a time budget is not spent on what could not be trained in it, nor on a few dear ones."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from cluster.history import History
from cluster.record import TrialRecord
from search.flops import Flops, flops
from search.halving import stopping
from search.pacing import reckoned
from search.question import Prices
from search.request import Request
from search.spec import SearchSpec
from spaces import TRAINING, Space
from spaces.domains import Choice, Integer, bare, grid

_MOST_KNOWN = 200  # trials that seconds are reckoned from
_LEAST_SECONDS = 1e-3  # of an epoch: nothing is free


def seconds_left(spec: SearchSpec, history: History) -> float | None:
    """Return what is left of the time budget of a search, None if it has none."""
    return None if spec.time_budget is None else spec.time_budget - history.seconds["search"]


class Costs:
    """The time that configurations take, by the operations they need and the best speed measured so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.stopping = stopping(request.spec.epochs, request.spec.grace_images)
        self._flops: dict[int, Flops] = {}  # by trial
        # By trial: how many epochs it had, and its best images a second.
        self._fastest: dict[int, tuple[int, float]] = {}
        self._baselines: dict[str, int] = {}  # operations of one image of each baseline; none where it cannot be built
        self._images = sum(request.cache.counts["train"].values())
        self._of_values: dict[str, dict[str, list[tuple[Any, int]]]] = {}  # by architecture and knob

    def too_long(self, architecture: str, config: dict[str, Any], history: History) -> str | None:
        """Return why a configuration could not end its epochs within what is left of the time budget, None if it may.

        The speed taken for it is the most operations a second that any epoch of this architecture has reached, or its
        baseline when the machine was measured, whatever else that did: so what is refused would take longer still.
        None without a time budget, before anything was measured, and at the very end, when not even the smallest
        configuration so far would be in time.
        """
        budget, left = self.request.spec.time_budget, seconds_left(self.request.spec, history)
        if budget is None or left is None:
            return None
        left, records = max(0.0, left), history.searched(architecture)
        fastest = max([self._calibrated(architecture, history), *map(self._flops_per_second, records)])
        if not fastest:
            return None
        epochs = self.stopping.whole_epochs(self.request.spec.epochs)
        seconds = epochs * self._images * self._flops_of(architecture, config).epoch / fastest
        smallest = min((self._flops_of_trial(record).epoch for record in records), default=0)
        least = epochs * self._images * smallest / fastest
        if seconds <= left or left < least <= budget:
            return None
        return (
            f"its {self.request.spec.epochs} epochs would take {seconds:.0f} s at least, at the best speed measured, "
            f"and {left:.0f} s of the time budget of {budget:g} s are left"
        )

    def prices(self, space: Space, history: History) -> Prices | None:
        """Return for each knob what its values cost: the logarithm of an epoch's seconds with it, weighted.

        What is sought under a time budget is improvement per second (Snoek et al., 2012), and seconds count the less,
        the more of them are gone (cost cooling; Lee et al., 2020): the weight falls from 1 to 0. A value's seconds are
        those of the baseline with it, by operations and the trials so far; knobs that leave the operations as they
        are, and those of real numbers, are not in it. None before any epoch has ended, without a time budget, and while
        all trials wanted would end within it, as fast as those before: then trials are scarce, and not seconds.
        """
        records = [each for each in history.searched(space.architecture)[-_MOST_KNOWN:] if each.seconds() > 0]
        budget = self.request.spec.time_budget
        if budget is None or not records or self._all_in_time(history, budget):
            return None
        weight = max(0.0, 1 - history.seconds["search"] / budget)
        of_values = self._flops_of_values(space)
        asked = [each for of_knob in of_values.values() for _, each in of_knob]
        known = {len(asked) + at: statistics.fmean(each.epoch_seconds()) for at, each in enumerate(records)}
        seconds, _ = reckoned([*asked, *(self._flops_of_trial(record).epoch for record in records)], known)
        logarithms = (math.log(max(each, _LEAST_SECONDS)) for each in seconds)
        return {
            name: [(value, weight * next(logarithms)) for value, _ in of_knob] for name, of_knob in of_values.items()
        }

    def _all_in_time(self, history: History, budget: float) -> bool:
        """Whether the trials that have not ended, begun or not, would within the budget: so it is where none has."""
        ended = sum(not record.live for name in self.request.spaces for record in history.searched(name))
        wanted, gone = history.trials_wanted or self.request.spec.trials, history.seconds["search"]
        return not ended or (wanted - ended) * gone / ended <= budget - gone

    def _flops_of_values(self, space: Space) -> dict[str, list[tuple[Any, int]]]:
        """Return the operations of the baseline with each value of a choice, or three of a range of whole numbers."""
        if space.architecture not in self._of_values:
            of_knobs = {
                name: self._flops_with(space, name, grid(knob.domain))
                for name, knob in space.knobs.items()
                if name not in TRAINING and isinstance(bare(knob.domain), Choice | Integer)
            }
            varying = {name: found for name, found in of_knobs.items() if len({each for _, each in found}) > 1}
            self._of_values[space.architecture] = varying
        return self._of_values[space.architecture]

    def _flops_with(self, space: Space, name: str, values: Sequence[Any]) -> list[tuple[Any, int]]:
        configs = [(value, dict(space.baseline) | {name: value}) for value in values]
        return [
            (value, self._flops_of(space.architecture, config).epoch)
            for value, config in configs
            if not self.request.preflight(space.architecture, config).impossible
        ]

    def _flops_of_trial(self, record: TrialRecord) -> Flops:
        if record.trial not in self._flops:
            self._flops[record.trial] = self._flops_of(record.architecture, record.config)
        return self._flops[record.trial]

    def _calibrated(self, architecture: str, history: History) -> float:
        """Return the speed at which the baseline's first steps were trained when the machine was measured."""
        from trainables.calibrate import single_speed

        if history.calibrated is None:
            return 0.0
        if architecture not in self._baselines:
            baseline = self.request.spaces[architecture].baseline
            impossible = self.request.preflight(architecture, baseline).impossible
            self._baselines[architecture] = 0 if impossible else self._flops_of(architecture, baseline).whole
        if not self._baselines[architecture]:
            return 0.0
        return single_speed(history.calibrated["images_per_second"], architecture) * self._baselines[architecture]

    def _flops_per_second(self, record: TrialRecord) -> float:
        """Return the speed of a trial's fastest epoch; what read the features of frozen layers computed less."""
        known, fastest = self._fastest.get(record.trial, (0, 0.0))
        if known != len(record.epochs):
            computed = [row["images_per_second"] for row in record.epochs if not row.get("reads_features")]
            fastest = float(max(computed, default=0.0))
            self._fastest[record.trial] = len(record.epochs), fastest
        return fastest * self._flops_of_trial(record).whole if fastest else 0.0

    def _flops_of(self, architecture: str, config: dict[str, Any]) -> Flops:
        cache = self.request.cache
        built_for = cache.image_shape, len(cache.classes), self.request.sources.get(architecture)
        return flops(architecture, config, *built_for, self.request.spec.epochs)

"""What a configuration costs at the least: a time budget is not spent on what could not be trained within it."""

from typing import Any

from cluster.history import History
from cluster.record import TrialRecord
from search.preflight import forward_flops
from search.request import Request


class Costs:
    """The time that configurations take, by the operations they need and the best speed measured so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._flops: dict[int, int] = {}  # of one image, by trial
        self._fastest: dict[
            int, tuple[int, float]
        ] = {}  # by trial: how many epochs it had, and its best images a second
        self._baselines: dict[str, int] = {}  # operations of one image of each baseline; none where it cannot be built
        self._images = sum(request.cache.counts["train"].values())

    def too_long(self, architecture: str, config: dict[str, Any], history: History) -> str | None:
        """Return why a configuration could not end its epochs within the time budget, or None if it may.

        The speed taken for it is the most operations a second that any epoch of this architecture has reached, or its
        baseline when the machine was measured, whatever else that did: so what is refused would take longer still.
        None without a time budget, and before anything was measured.
        """
        budget = self.request.spec.time_budget
        if budget is None:
            return None
        records = history.searched(architecture)
        fastest = max([self._calibrated(architecture, history), *map(self._flops_per_second, records)])
        if not fastest:
            return None
        epochs = self.request.spec.epochs
        seconds = epochs * self._images * self._flops_of(architecture, config) / fastest
        if seconds <= budget:
            return None
        return (
            f"its {epochs} epochs would take {seconds:.0f} s at least, at the best speed measured, and the time "
            f"budget is {budget:g} s"
        )

    def _calibrated(self, architecture: str, history: History) -> float:
        """Return the speed at which the baseline's first steps were trained when the machine was measured."""
        if history.calibrated is None:
            return 0.0
        if architecture not in self._baselines:
            baseline = self.request.spaces[architecture].baseline
            impossible = self.request.preflight(architecture, baseline).impossible
            self._baselines[architecture] = 0 if impossible else self._flops_of(architecture, baseline)
        if not self._baselines[architecture]:
            return 0.0
        measured = history.calibrated["images_per_second"][architecture].values()
        return float(max(measured)) * self._baselines[architecture]

    def _flops_per_second(self, record: TrialRecord) -> float:
        """Return the speed of a trial's fastest epoch; what read the features of frozen layers computed less."""
        known, fastest = self._fastest.get(record.trial, (0, 0.0))
        if known != len(record.epochs):
            computed = [row["images_per_second"] for row in record.epochs if not row.get("reads_features")]
            fastest = float(max(computed, default=0.0))
            self._fastest[record.trial] = len(record.epochs), fastest
        if not fastest:
            return 0.0
        if record.trial not in self._flops:
            self._flops[record.trial] = self._flops_of(record.architecture, record.config)
        return fastest * self._flops[record.trial]

    def _flops_of(self, architecture: str, config: dict[str, Any]) -> int:
        cache, source = self.request.cache, self.request.sources.get(architecture)
        return forward_flops(architecture, config, cache.image_shape, len(cache.classes), source)

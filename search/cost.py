"""What a configuration costs at the least: a time budget is not spent on what could not be trained within it."""

from typing import Any

from cluster.history import History, TrialRecord
from search.preflight import forward_flops
from search.request import Request


class Costs:
    """The time that configurations take, by the operations they need and the best speed measured so far."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._flops: dict[int, int] = {}  # of one image, by trial
        self._baselines: dict[str, int] = {}  # the same, of each baseline
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
        records = [record for record in history.of_role("search") if record.architecture == architecture]
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
        baseline = self.request.spaces[architecture].baseline
        if history.calibrated is None or self.request.preflight(architecture, baseline).impossible:
            return 0.0
        if architecture not in self._baselines:
            self._baselines[architecture] = self._flops_of(architecture, baseline)
        measured = history.calibrated["images_per_second"][architecture].values()
        return float(max(measured)) * self._baselines[architecture]

    def _flops_per_second(self, record: TrialRecord) -> float:
        """Return the speed of a trial's fastest epoch; what read the features of frozen layers computed less."""
        computed = [row["images_per_second"] for row in record.epochs if not row.get("reads_features")]
        if not computed:
            return 0.0
        if record.trial not in self._flops:
            self._flops[record.trial] = self._flops_of(record.architecture, record.config)
        return float(max(computed)) * self._flops[record.trial]

    def _flops_of(self, architecture: str, config: dict[str, Any]) -> int:
        cache, source = self.request.cache, self.request.sources.get(architecture)
        return forward_flops(architecture, config, cache.image_shape, len(cache.classes), source)

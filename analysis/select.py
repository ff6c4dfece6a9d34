"""The finalists: the best configuration over all trials, and the baseline it has to beat."""

from dataclasses import dataclass
from typing import Any

from cluster.history import History, TrialRecord, ranked
from foundation import RequestError


@dataclass(frozen=True)
class Contender:
    """A configuration that goes on to be retrained: `tuned`, or the `baseline` it has to beat."""

    name: str
    record: TrialRecord

    def to_json(self) -> dict[str, Any]:
        """Return how `analysis.json` begins a contender."""
        return {
            "name": self.name,
            "trial": self.record.trial,
            "architecture": self.record.architecture,
            "config": self.record.config,
        }


def contenders(history: History, metric: str) -> list[Contender]:
    """Return the best configuration that the search found, and the baseline that it has to beat.

    That is the baseline of its own architecture; or, where a baseline did best of all, that one: one run each is
    too little to say that tuning did not help. A baseline that failed is left out, since it would fail again. Raises
    `RequestError` when no trial has a finished epoch.
    """
    order = ranked(history.of_role("search"), metric)
    sound = [record for record in order if record.best_epoch(metric) and not record.failed]
    if not sound:
        raise RequestError(
            f"nothing can be analysed: none of the {len(order)} trials of the search has a finished epoch. "
            "`convscout show` lists what happened to them"
        )
    baselines = [record for record in sound if record.method == "baseline"]
    tuned = next((record for record in sound if record.method != "baseline"), None)
    if tuned is None:
        return [Contender("baseline", baselines[0])]
    if sound[0] is not tuned:
        return [Contender("tuned", tuned), Contender("baseline", sound[0])]
    own = [record for record in baselines if record.architecture == tuned.architecture]
    return [Contender("tuned", tuned), *(Contender("baseline", record) for record in own)]

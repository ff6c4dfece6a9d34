"""The finalists: the best configuration over all trials, and the baseline of its architecture."""

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
    """Return the best configuration of the search and its architecture's baseline; one of them if they are the same.

    A baseline that failed in the search is left out: it would fail again. Raises `RequestError` when no trial has a
    finished epoch.
    """
    order = ranked(history.of_role("search"), metric)
    best = next((record for record in order if record.best_epoch(metric) and not record.failed), None)
    if best is None:
        raise RequestError(
            f"nothing can be analysed: none of the {len(order)} trials of the search has a finished epoch. "
            "`convscout show` lists what happened to them"
        )
    if best.method == "baseline":
        return [Contender("baseline", best)]
    found = [Contender("tuned", best)]
    for record in history.of_role("search"):
        if record.method == "baseline" and record.architecture == best.architecture and not record.failed:
            found.append(Contender("baseline", record))
    return found

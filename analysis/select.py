"""The contenders: the best configurations that the search found, and the baseline of each architecture."""

from dataclasses import dataclass
from typing import Any

from cluster.history import History, TrialRecord, ranked
from foundation import Problems, RequestError


@dataclass(frozen=True)
class Contender:
    """A configuration that goes on to be retrained: one of the search's best, or the baseline of an architecture."""

    record: TrialRecord

    @property
    def is_baseline(self) -> bool:
        """Whether nobody tuned it: it is the configuration that every search of its architecture begins with."""
        return self.record.method == "baseline"

    @property
    def name(self) -> str:
        """What people read: `cnn trial 17`, or `cnn baseline`."""
        return f"{self.record.architecture} {'baseline' if self.is_baseline else f'trial {self.record.trial}'}"

    def to_json(self) -> dict[str, Any]:
        """Return how `analysis.json` begins a contender."""
        return {
            "name": self.name,
            "baseline": self.is_baseline,
            "trial": self.record.trial,
            "architecture": self.record.architecture,
            "config": self.record.config,
        }


def contenders(history: History, metric: str, finalists: int) -> list[Contender]:
    """Return the best `finalists` configurations of the search, best first, then the architectures' other baselines.

    The order is that of the leaderboard (`ranked`). One run each is too little to say that tuning did not help, so
    where only baselines are among the best, the best that was tuned goes on too. A baseline that failed is left out,
    since it would fail again. Raises `RequestError` when no trial has a finished epoch.
    """
    order = ranked(history.of_role("search"), metric)
    sound = [record for record in order if record.best_epoch(metric) and not record.failed]
    if not sound:
        raise RequestError(
            f"nothing can be analysed: none of the {len(order)} trials of the search has a finished epoch. "
            "`convscout show` lists what happened to them"
        )
    best, others = sound[:finalists], sound[finalists:]
    if all(record.method == "baseline" for record in best):
        best += [record for record in others if record.method != "baseline"][:1]
    return [Contender(record) for record in best + [each for each in others if each.method == "baseline"]]


def check_numbers(finalists: int, seeds: int, folds: int, workers: int = 1) -> None:
    """Raise `RequestError` unless an analysis can be made with these numbers of finalists, seeds, folds and workers."""
    problems = Problems()
    for option, value in (("--finalists", finalists), ("--seeds", seeds), ("--retrain-workers", workers)):
        if value < 1:
            problems.add(f"{option} {value}: at least 1 is needed")
    if folds < 0 or folds == 1:
        problems.add(f"--folds {folds}: 2 or more make a cross-validation, 0 none")
    problems.raise_if_any()

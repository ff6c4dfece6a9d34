"""The contenders: the best configurations that the search found, and the baseline of each architecture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cluster.history import History
from cluster.record import TrialRecord, ranked
from foundation import Problems, RequestError, count


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
    where only baselines are among the best, the best that was tuned goes on too. A configuration that was tried twice
    counts once, in its better place, as the baseline where it is that. A baseline that failed is left out, since it
    would fail again. Raises `RequestError` when no trial has a finished epoch.
    """
    order = ranked(history.of_role("search"), metric)
    sound = [record for record in order if record.best_epoch(metric) and not record.failed]
    if not sound:
        raise RequestError(
            f"nothing can be analysed: none of the {len(order)} trials of the search has a finished epoch. "
            "`convscout show` lists what happened to them"
        )
    apart = _apart(sound)
    best, others = apart[:finalists], apart[finalists:]
    if all(record.method == "baseline" for record in best):
        best += [record for record in others if record.method != "baseline"][:1]
    return [Contender(record) for record in best + [each for each in others if each.method == "baseline"]]


def _apart(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return one trial of each configuration, in the place of the best of them."""
    kept: dict[tuple[str, str], TrialRecord] = {}
    for record in records:
        what = record.architecture, json.dumps(record.config, sort_keys=True)
        if what not in kept or record.method == "baseline":
            kept[what] = record
    return list(kept.values())


def check_numbers(finalists: int, seeds: int, folds: int, workers: int = 1, ablate: Sequence[str] = ()) -> None:
    """Raise `RequestError` unless an analysis can be made with these numbers of finalists, seeds, folds and workers."""
    problems = Problems()
    for option, value in (("--finalists", finalists), ("--seeds", seeds), ("--retrain-workers", workers)):
        if value < 1:
            problems.add(f"{option} {value}: at least 1 is needed")
    if folds < 0 or folds == 1:
        problems.add(f"--folds {folds}: 2 or more make a cross-validation, 0 none")
    if folds and ablate:
        problems.add(
            "--ablate compares on the validation images, of which --folds leaves none apart: ask for one of them"
        )
    problems.raise_if_any()


def no_faster(chosen: Sequence[Contender], workers: int) -> list[str]:
    """Return a sentence for each contender whose batches are too small for so many workers to share."""
    return [
        f"{each.name} trains with batches of {count(each.record.config['batch_size'], 'image')}, fewer than two for "
        f"each of {workers} workers: all of them compute all of it, and it trains no faster than with one."
        for each in chosen
        if workers > 1 and each.record.config["batch_size"] < 2 * workers
    ]

"""What the trials of a search teach besides who won: computed once, and kept in `analysis.json`."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from analysis.edges import at_the_edge
from analysis.experiment import Experiment
from analysis.importance import importance
from analysis.rescue import extrapolate
from analysis.selection import corrected_winner
from cluster.arrivals import METRICS
from cluster.record import TrialRecord, ranked
from spaces import Space

SAMPLED_EVENLY = ("random", "grid", "asha")
# An edge needs the best of some trials that ran equally long.
FEWEST_FOR_EDGES = 10
MOST_RESCUES = 5

Json = dict[str, Any]


def learned(experiment: Experiment) -> Json:
    """Return what the winner's score is worth, which stopped trials could still win, and which knobs mattered.

    Everything is of the search's own trials, failed ones left out.
    """
    records = [record for record in experiment.history.of_role("search") if record.epochs and not record.failed]
    return {
        "winner": _winner(experiment, records),
        "rescue": _rescue(experiment, records),
        "importance": [
            asdict(found) | {"sentence": found.sentence}
            for space, of_space in _by_space(experiment, records)
            for found in _importances(experiment, space, of_space)
        ],
        "edges": [
            asdict(edge) | {"architecture": space.architecture, "sentence": edge.sentence}
            for space, of_space in _by_space(experiment, records)
            for edge in _edges(experiment, space, of_space)
        ],
    }


def _by_space(experiment: Experiment, records: Sequence[TrialRecord]) -> list[tuple[Space, list[TrialRecord]]]:
    return [
        (space, [each for each in records if each.architecture == space.architecture])
        for space in experiment.spaces.values()
    ]


def _winner(experiment: Experiment, records: Sequence[TrialRecord]) -> Json | None:
    """Return the best validation accuracy corrected for its selection; None where it was not what was selected by.

    The candidates are the epochs of all trials that got as far as the winner: those it was picked from.
    """
    if experiment.metric != "val_accuracy" or not records:
        return None
    best = ranked(records, experiment.metric)[0]
    rivals = [record for record in records if record.rung == best.rung]
    kept = [correct for record in rivals if (correct := experiment.image_correct(record)) is not None]
    if len(kept) < len(rivals):
        return None
    found = corrected_winner(kept)
    return asdict(found) | {"trial": rivals[found.trial].trial, "sentence": found.sentence}


def _rescue(experiment: Experiment, records: Sequence[TrialRecord]) -> Json:
    """Return the stopped trials that could still win, the most hopeful first, or why that is not known."""
    metric, epochs = experiment.metric, experiment.spec["epochs"]
    curves = {record.trial: [row[metric] for row in record.epochs] for record in records}
    finite = [each for each in records if all(v is not None and math.isfinite(v) for v in curves[each.trial])]
    completed = {each.trial: curves[each.trial] for each in finite if len(each.epochs) == epochs}
    stopped = {each.trial: curves[each.trial] for each in finite if each.status == "stopped"}
    found = extrapolate(completed, stopped, higher_is_better=METRICS[metric] > 0)
    # A trial whose patience ran out has no curve to the end, but what it reached has to be beaten all the same.
    sign = METRICS[metric]
    ended = [sign * value for each in finite if each.status == "completed" for value in curves[each.trial]]
    top = max(ended, default=math.nan)
    winning = [each for each in found.trials if each.could_win and max(sign * each.high, sign * each.low) > top]
    could = [replace(each, best=sign * top) for each in winning]
    return {
        "reason": found.reason,
        "n_stopped": len(stopped),
        "n_could_win": len(could),
        "trials": [asdict(each) | {"sentence": each.sentence} for each in could[:MOST_RESCUES]],
    }


def _importances(experiment: Experiment, space: Space, records: Sequence[TrialRecord]) -> list[Any]:
    """Return the importance of the knobs at each rung, from all trials that got there, and at the last epoch."""
    rungs = {row["epoch"] for record in records for row in record.decisions if row.get("rung")}
    evenly = experiment.spec["method"] in SAMPLED_EVENLY
    found = []
    for epoch in sorted(rungs | {experiment.spec["epochs"]}):
        rows = _scores(records, experiment.metric, epoch)
        if rows:
            found.append(importance(space, rows, epoch, sampled_evenly=evenly))
    return found


def _edges(experiment: Experiment, space: Space, records: Sequence[TrialRecord]) -> Sequence[Any]:
    """Return the ranges that were too narrow, at the last epoch that enough trials reached."""
    for epoch in range(experiment.spec["epochs"], 0, -1):
        rows = _scores(records, experiment.metric, epoch)
        if len(rows) >= FEWEST_FOR_EDGES:
            better = METRICS[experiment.metric] > 0
            return at_the_edge(space, rows, higher_is_better=better, on_grid=experiment.spec["method"] == "grid")
    return ()


def _scores(records: Sequence[TrialRecord], metric: str, epoch: int) -> list[tuple[dict[str, Any], float]]:
    """Return configuration and score at an epoch of each trial that got there."""
    reached = [record for record in records if len(record.epochs) >= epoch]
    rows = [(record.config, record.epochs[epoch - 1][metric]) for record in reached]
    return [(config, float(score)) for config, score in rows if score is not None]

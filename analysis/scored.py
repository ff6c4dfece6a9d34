"""The trials of a search that ended with a score, as the sections of the report on them need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.page import Analysis
from analysis.wording import decimal, percent
from cluster.arrivals import METRICS
from foundation import count


@dataclass(frozen=True)
class Scored:
    """A trial that has ended, with its score by `metric` at its best epoch; `row` is what `analysis.json` says."""

    metric: str
    row: dict[str, Any]

    @cached_property
    def score(self) -> float:
        """The value of the metric at the trial's best epoch."""
        return float(self.row[self.metric])

    @property
    def rank(self) -> float:
        """The score turned so that more is better."""
        return METRICS[self.metric] * self.score

    @property
    def name(self) -> str:
        """What people read."""
        return f"trial {self.row['trial']}"

    @property
    def config(self) -> dict[str, Any]:
        """The hyperparameters that are active."""
        return dict(self.row["config"])

    @property
    def group(self) -> str:
        """How it ended: `completed`, also for one that had converged, `stopped` or `failed`."""
        status = str(self.row["status"])
        return status if status in ("completed", "stopped") else "failed"

    @property
    def text(self) -> str:
        """The trial in a line, for whoever points at it."""
        run = f"{self.row['epochs_run']} of {count(self.row['epochs'], 'epoch')}"
        return f"{self.name} ({self.row['architecture']}): {said(self.metric, self.score)}, {run}, {self.row['status']}"


def scored(analysis: Analysis, *groups: str) -> list[Scored]:
    """Return the trials of the search that ended with a score, in the order of the leaderboard; only some groups of
    them, where groups are given.
    """
    rows = (analysis.get("search") or {}).get("trials") or []
    metric = analysis["experiment"]["metric"]
    found = [Scored(metric, row) for row in rows if row["ended_by"] and row.get(metric) is not None]
    return [trial for trial in found if not groups or trial.group in groups]


def best(trials: Sequence[Scored]) -> Scored:
    """Return the trial with the best score, the earliest of equals."""
    return max(trials, key=lambda trial: (trial.rank, -trial.row["trial"]))


def median(trials: Sequence[Scored]) -> float:
    """Return the median of the scores."""
    return float(np.median([trial.score for trial in trials]))


def said(metric: str, score: float) -> str:
    """Return a score for people: a share in per cent, a loss with four places."""
    return percent(score) if METRICS[metric] > 0 else decimal(score)

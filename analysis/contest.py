"""A contender in the contest: its retrained runs, the epochs they call for, and its final trainings."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.epochs import EpochChoice, choose_epochs
from analysis.metrics import over_seeds
from analysis.select import Contender
from cluster.arrivals import METRICS
from cluster.record import TrialRecord

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")


class Contestant:
    """A contender with its retrained runs.

    A run that diverged or was lost is left out of the means, and stays in the report. `image_losses` gives the losses
    of a run's validation images (epochs x images), None where they are not there.
    """

    def __init__(
        self,
        contender: Contender,
        runs: Sequence[TrialRecord],
        image_losses: Callable[[TrialRecord], NDArray[np.float32] | None] = lambda _: None,
    ) -> None:
        self.contender, self.runs = contender, runs
        self.sound_runs = [run for run in runs if run.status == "completed"]
        self.n_failed = len(runs) - len(self.sound_runs)
        self._image_losses = image_losses

    @cached_property
    def choice(self) -> EpochChoice | None:
        """The number of epochs that its runs call for, None if none of them is sound."""
        if not self.sound_runs:
            return None
        val_loss, train_loss = (
            [[row[name] for row in run.epochs] for run in self.sound_runs] for name in ("val_loss", "train_loss")
        )
        of_images = [losses for run in self.sound_runs if (losses := self._image_losses(run)) is not None]
        whole = len(of_images) == len(self.sound_runs)
        return choose_epochs(val_loss, of_images if whole else None, train_loss)

    @property
    def name(self) -> str:
        """The name of its contender."""
        return self.contender.name

    @property
    def epochs(self) -> int:
        """The chosen number of epochs; only to be asked where there is a choice."""
        assert self.choice is not None
        return self.choice.epochs

    def at_chosen_epoch(self, metric: str) -> dict[str, Any]:
        """Return a validation metric at the chosen epoch, over seeds, as `{mean, low, high, n, values}`."""
        values = [run.epochs[self.epochs - 1][metric] for run in self.sound_runs]
        return over_seeds(values, proportion=metric != "val_loss") | {"values": values}

    def to_json(self) -> dict[str, Any]:
        """Return the contender as `analysis.json` keeps it, without its test figures."""
        row = self.contender.to_json() | {"epochs": self.choice and asdict(self.choice)}
        row["curves"] = [
            {"trial": run.trial, "seed": run.seed, "status": run.status, "error": run.error}
            | {name: [epoch[name] for epoch in run.epochs] for name in CURVES}
            for run in self.runs
        ]
        if self.choice:
            row["validation"] = {name: self.at_chosen_epoch(name) for name in METRICS}
        return row


def winner(contestants: Sequence[Contestant], metric: str) -> tuple[Contestant, str]:
    """Return the contestant with the best mean of a validation metric at its chosen epoch, and the sentence why.

    One that failed with some seeds ranks behind those that never did: its mean is only that of its good runs. The
    first of equals wins.
    """
    sign = METRICS[metric]
    best = max(contestants, key=lambda each: (not each.n_failed, sign * each.at_chosen_epoch(metric)["mean"]))
    mean = best.at_chosen_epoch(metric)["mean"]
    others = ", ".join(_figure(each, metric) for each in contestants if each is not best)
    against = f" against {others}" if others else ", the only contender"
    ahead = any(sign * each.at_chosen_epoch(metric)["mean"] > sign * mean for each in contestants)
    among = " of those that never failed" if ahead else ""
    return best, f"best mean {metric}{among} on the validation images: {_figure(best, metric)}{against}"


def _figure(contestant: Contestant, metric: str) -> str:
    found = contestant.at_chosen_epoch(metric)
    runs = f"{found['n']} runs" if found["n"] > 1 else "1 run"
    if contestant.n_failed:
        runs += f", {contestant.n_failed} more failed"
    epochs = f"{contestant.epochs} epoch{'s' * (contestant.epochs > 1)}"
    return f"{contestant.name} {found['mean']:.4f} after {epochs} ({runs})"

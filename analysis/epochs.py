"""How many epochs a configuration should be trained for, read from its validation-loss curves: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A last epoch within this fraction of the lowest mean loss is level with it, not a rise.
LEVEL = 0.01


@dataclass(frozen=True)
class EpochChoice:
    """The number of epochs to train for, and why.

    `epochs` and `lowest_at` count from 1. `converged` is false when the loss was still falling at the last epoch.
    `mean` is the validation loss per epoch, averaged over the seeds. `sentence` says all this to a reader.
    """

    epochs: int
    lowest_at: int
    n_seeds: int
    converged: bool
    mean: tuple[float, ...]
    sentence: str


def choose_epochs(val_loss: Sequence[Sequence[float]]) -> EpochChoice:
    """Return the epoch at which the mean validation loss over seeds is lowest, the earliest of equals.

    `val_loss` has one row per seed and one column per epoch; runs that diverged are left out by the caller.
    Raises ValueError when there is no row or no epoch, when rows differ in length, and for NaN or infinite values.
    """
    if not val_loss or len({len(row) for row in val_loss}) != 1 or not len(val_loss[0]):
        lengths = [len(row) for row in val_loss]
        raise ValueError(f"validation-loss curves must be equally long, with one epoch at least; found {lengths}")
    losses = np.asarray(val_loss, dtype=np.float64)
    if not np.isfinite(losses).all():
        raise ValueError("validation-loss curves hold a value that is not finite; leave diverged runs out")
    mean = losses.mean(axis=0)
    lowest_at = int(mean.argmin()) + 1
    n_seeds, n_epochs = losses.shape
    return EpochChoice(
        epochs=lowest_at,
        lowest_at=lowest_at,
        n_seeds=n_seeds,
        converged=lowest_at < n_epochs,
        mean=tuple(mean.tolist()),
        sentence=_sentence(mean.tolist(), lowest_at, n_seeds),
    )


def _sentence(mean: list[float], lowest_at: int, n_seeds: int) -> str:
    epochs = f"{lowest_at} epoch{'s' if lowest_at > 1 else ''}"
    curve = f"the mean validation loss of {n_seeds} seeds" if n_seeds > 1 else "the validation loss of 1 run"
    if lowest_at == len(mean):
        return f"{epochs}: {curve} is lowest at the last epoch: not converged, raise --epochs"
    level = mean[-1] <= mean[lowest_at - 1] * (1 + LEVEL)
    if level:
        after = "it stays level after that"
    elif lowest_at == len(mean) - 1:
        after = "the one epoch after it is worse, too little to speak of overfitting"
    else:
        after = "after that it rises: overfitting"
    return f"{epochs}: {curve} is lowest at epoch {lowest_at} of {len(mean)}; {after}"

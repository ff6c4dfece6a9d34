"""How many epochs a configuration should be trained for, read from its validation-loss curves: pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.curves import Floats, LossCurves
from foundation import count

# A loss within this fraction of another is level with it: neither a rise nor a fall.
LEVEL = 0.01
# Below this validation loss (true classes get 90 % and more) a problem is solved, and nobody speaks of underfitting.
SOLVED = 0.1
# With no more seeds than this, an interval is called indicative.
FEW_SEEDS = 3
# The end of a curve is its last fifth, and at least this many epochs.
SHORT = 5
DRAWS = 2000


@dataclass(frozen=True)
class EpochChoice:
    """The number of epochs to train for, and why. Epochs count from 1.

    `epochs`: the chosen number, the earliest epoch whose loss is within one standard error of the lowest.
    `lowest_at`: the epoch at which the smoothed mean is lowest; `low` and `high`: its 95 % interval, None with one
    seed and no losses per image. `indicative`: so few seeds (3 or fewer) that the interval is a hint only.
    `converged`: the loss had stopped falling before the last epoch. `rises_after`: the last epoch before the loss
    rises for good, None where it does not. `overfitting`: it rises though the training loss does not.
    `underfitting`: the loss is level and not low, and the training loss is no lower. `mean` and `smoothed`: the
    validation loss per epoch, averaged over seeds, as it is and smoothed. `sentence` says all this to a reader.
    """

    epochs: int
    lowest_at: int
    low: int | None
    high: int | None
    n_seeds: int
    indicative: bool
    converged: bool
    rises_after: int | None
    overfitting: bool
    underfitting: bool
    mean: tuple[float, ...]
    smoothed: tuple[float, ...]
    sentence: str


def choose_epochs(
    val_loss: Sequence[Sequence[float]],
    image_losses: Sequence[NDArray[np.floating[Any]]] | None = None,
    train_loss: Sequence[Sequence[float]] | None = None,
    seed: int = 0,
) -> EpochChoice:
    """Return the number of epochs that validation-loss curves call for, with the interval of their minimum.

    `val_loss` and `train_loss` have one row per seed and one column per epoch, cross-entropy in nats; runs that
    diverged are left out by the caller. `image_losses` holds one array (epochs, images) per seed, memory-mapped
    where it is large, of the same images in the same order. `seed` draws the bootstrap.

    The curves are smoothed (`curves.smoothing_window`), and their mean over seeds is lowest at `lowest_at`, the
    earliest of equals, with a bootstrap interval over seeds and images (`LossCurves.lowest_interval`). Chosen is the
    one-standard-error rule (Breiman et al., 1984): the earliest epoch whose mean difference to that minimum is no
    larger than its standard error, both from the differences within each seed. With one seed the standard error is
    that over images; without losses per image it is 0, and the lowest epoch is chosen.

    Raises ValueError when there is no row or no epoch, when rows differ in length, when the shapes do not fit
    together, and for NaN or infinite values.
    """
    losses = _checked("validation", val_loss)
    training = None if train_loss is None else _checked("training", train_loss)
    _check_together(losses, training, image_losses)
    curves = LossCurves(losses, image_losses)
    smoothed = curves.smooth.mean(axis=0)
    lowest = int(smoothed.argmin())
    interval = curves.lowest_interval(DRAWS, np.random.default_rng(seed))
    # Noise may put the interval beside the epoch it speaks of.
    low, high = (min(interval[0], lowest) + 1, max(interval[1], lowest) + 1) if interval else (None, None)
    rises_after = _rises_after(curves, lowest)
    converged = not _still_falls(curves, lowest, high)
    trained = None if training is None else (training @ curves.window.T).mean(axis=0)
    choice = EpochChoice(
        epochs=_earliest(curves, lowest) + 1,
        lowest_at=lowest + 1,
        low=low,
        high=high,
        n_seeds=curves.n_seeds,
        indicative=curves.n_seeds <= FEW_SEEDS,
        converged=converged,
        rises_after=rises_after,
        overfitting=rises_after is not None and (trained is None or bool(trained[-1] <= trained[lowest])),
        underfitting=converged and rises_after is None and _underfits(smoothed, trained, lowest),
        mean=tuple(losses.mean(axis=0).tolist()),
        smoothed=tuple(smoothed.tolist()),
        sentence="",
    )
    return replace(choice, sentence=_sentence(choice))


def _checked(name: str, rows: Sequence[Sequence[float]]) -> Floats:
    """Return curves as an array (seeds, epochs), or raise ValueError."""
    lengths = [len(row) for row in rows]
    if len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(f"{name}-loss curves must be equally long, with one epoch at least; found {lengths}")
    losses = np.asarray(rows, dtype=np.float64)
    if not np.isfinite(losses).all():
        raise ValueError(f"{name}-loss curves hold a value that is not finite; leave diverged runs out")
    return losses


def _check_together(
    losses: Floats, training: Floats | None, image_losses: Sequence[NDArray[np.floating[Any]]] | None
) -> None:
    """Raise ValueError unless the training losses and the losses per image fit the validation losses."""
    if training is not None and training.shape != losses.shape:
        raise ValueError(f"training-loss curves are {training.shape}, validation-loss curves {losses.shape}")
    if image_losses is None:
        return
    shapes = [each.shape for each in image_losses]
    n_seeds, n_epochs = losses.shape
    if len(shapes) != n_seeds or len(set(shapes)) != 1 or len(shapes[0]) != 2 or shapes[0][0] != n_epochs:
        raise ValueError(
            f"losses per image must be one array of ({n_epochs} epochs, images) for each of {count(n_seeds, 'seed')}, "
            f"all with the same images; found {shapes}"
        )
    if not all(np.isfinite(each).all() for each in image_losses):
        raise ValueError("losses per image hold a value that is not finite; leave diverged runs out")


def _earliest(curves: LossCurves, lowest: int) -> int:
    """Return the earliest epoch, from 0, that is within one standard error of the lowest: see `choose_epochs`."""
    differences = curves.smooth - curves.smooth[:, [lowest]]
    mean = differences.mean(axis=0)
    if curves.n_seeds > 1:
        error = differences.std(axis=0, ddof=1) / np.sqrt(curves.n_seeds)
    else:
        error = np.array([curves.contrast(curves.against(epoch, lowest))[1] for epoch in range(curves.n_epochs)])
    return int(np.argmax(mean <= error))


def _rises_after(curves: LossCurves, lowest: int) -> int | None:
    """Return the last epoch, from 1, before the loss rises for good, or None where it cannot be said to rise.

    It rises where all of this holds: two epochs or more follow the lowest; the last one is more than 1 % above it;
    the slope of the epochs after the lowest is above 0 (one-sided t-test at 5 %; the lowest itself is left out, since
    it was picked for being low); and the mean of the last two is above it by the same test, or both by 1 % with one
    seed and no losses per image. The epoch returned is the last before these two that is not above by itself.
    """
    after = range(lowest + 1, curves.n_epochs)
    mean = curves.smooth.mean(axis=0)
    if len(after) < 2 or mean[-1] <= mean[lowest] * (1 + LEVEL) or not curves.rises(lowest + 1):
        return None
    if curves.has_noise:
        above = [curves.significant(curves.against(epoch, lowest)) for epoch in after]
        # Together: runs that overfit differ most at the very end, and one of the two alone may fall short for that.
        in_the_end = curves.significant((curves.against(after[-2], lowest) + curves.against(after[-1], lowest)) / 2)
    else:
        above = [bool(mean[epoch] > mean[lowest] * (1 + LEVEL)) for epoch in after]
        in_the_end = all(above[-2:])
    if not in_the_end:
        return None
    not_above = [epoch for epoch, rises in zip(after[:-2], above, strict=False) if not rises]
    return (not_above[-1] if not_above else lowest) + 1


def _still_falls(curves: LossCurves, lowest: int, high: int | None) -> bool:
    """Whether the loss still falls at the last epoch, so that it has not converged.

    It does where the line through the last fifth of the epochs (5 at least) goes down by more than 1 % of the lowest
    loss, and either the lowest epoch is the last, or the interval reaches the last and the slope is below 0
    (one-sided t-test at 5 %). Of curves too short for that, where the lowest epoch is the last.
    """
    length = max(SHORT, curves.n_epochs // 5)
    at_the_end = bool(lowest + 1 == curves.n_epochs)
    if curves.n_epochs <= length:
        return at_the_end
    downwards = -curves.slope(curves.n_epochs - length)
    fall = curves.contrast(downwards)[0] * (length - 1)
    if fall <= LEVEL * float(curves.smooth.mean(axis=0).min()):
        return False
    return at_the_end or (high == curves.n_epochs and curves.significant(downwards))


def _underfits(smoothed: Floats, trained: Floats | None, lowest: int) -> bool:
    """Whether curves that converged and do not rise show underfitting.

    They do where the training loss at the lowest epoch is no lower than the validation loss, so that nothing of the
    training images was learned by heart, and that loss is above 0.1. Never where the training loss is not known.
    """
    return trained is not None and bool(trained[lowest] >= smoothed[lowest] > SOLVED)


def _sentence(choice: EpochChoice) -> str:
    last = len(choice.mean)
    at = f"the last epoch, {last}" if choice.lowest_at == last else str(choice.lowest_at)
    if choice.low is None:
        at += " (1 seed: no interval)"
    else:
        at += f" [{choice.low}, {choice.high}]"
        at += f" (indicative: {count(choice.n_seeds, 'seed')})" if choice.indicative else ""
    said = f"{count(choice.epochs, 'epoch')}: validation loss is lowest at {at}"
    if choice.epochs < choice.lowest_at:
        said += f", and {choice.epochs} is the earliest within one standard error"
    ends = ":" if choice.lowest_at == last and not choice.converged and choice.epochs == last else ";"
    return f"{said}{ends} {_afterwards(choice, last)}"


def _afterwards(choice: EpochChoice, last: int) -> str:
    """Return what becomes of the loss after its minimum, and what to do about it."""
    if not choice.converged:
        falls = "" if choice.lowest_at == last else "it still falls at the end: "
        return f"{falls}not converged, raise --epochs"
    if choice.overfitting:
        return f"after {choice.rises_after} it rises: overfitting"
    if choice.rises_after is not None:
        return f"after {choice.rises_after} it rises, and the training loss with it: unstable, lower the learning rate"
    rise = choice.smoothed[-1] / choice.smoothed[choice.lowest_at - 1] - 1
    if choice.lowest_at < last - 1 and rise > LEVEL and choice.n_seeds > 1 and not choice.underfitting:
        seeds = count(choice.n_seeds, "seed")
        return f"it ends {100 * rise:.0f} % above that, and {seeds} cannot tell whether by more than chance"
    level = "it is level by then" if choice.lowest_at == last else "it stays level after that"
    if choice.underfitting:
        return f"{level}, and the training loss is no lower: underfitting, try a larger network or less regularisation"
    if choice.lowest_at == last - 1 and choice.mean[-1] > choice.mean[-2] * (1 + LEVEL):
        return "the one epoch after it is worse, too little to speak of overfitting"
    return level

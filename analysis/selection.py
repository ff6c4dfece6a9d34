"""What the winner's validation score is worth, after it was picked for that very score: a pure function."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.wording import percent, points
from foundation import count

DRAWS = 1000
# The share of the noise of a real selection that a pick adds to it: see `corrected_winner`.
HALF = 0.5
# So many candidates at a time are scored on all draws.
BLOCK = 1024


@dataclass(frozen=True)
class Selection:
    """The winner among all trials and their epochs, and its accuracy corrected for having been picked.

    `trial` is the place of the winner in what was given, from 0; `epoch` counts from 1. `accuracy` is its share of
    validation images, `corrected` what is to be expected of other images, with its 95 % interval `low` to `high`;
    `optimism` is the difference of the first two. `n_epochs` counts those of all trials together.
    """

    trial: int
    epoch: int
    accuracy: float
    corrected: float
    low: float
    high: float
    optimism: float
    n_trials: int
    n_epochs: int
    n_images: int

    @property
    def sentence(self) -> str:
        """What may be said of the winner's score."""
        among = f"{count(self.n_trials, 'trial')} and {count(self.n_epochs, 'epoch')}"
        images = count(self.n_images, "validation image")
        return (
            f"the best of {among} is right about {percent(self.accuracy)} of {images}; "
            f"since it was picked for that, {percent(self.corrected)} [{100 * self.low:.1f}, {100 * self.high:.1f}] "
            f"is to be expected of other images ({points(self.optimism, signed=False)} less)"
        )


def corrected_winner(correct: Sequence[NDArray[np.bool_]], seed: int = 0, draws: int = DRAWS) -> Selection:
    """Return the winner of a search and its accuracy, corrected by a bootstrap of the whole selection.

    `correct` holds one array (epochs, images) for each trial: whether it was right about a validation image after an
    epoch. The images are the same for all, the numbers of epochs may differ. The winner is the best epoch of all
    trials, the earliest of equals.

    A bootstrap of the whole selection, as in BBC-CV (Tsamardinos, Greasidou and Borboudakis, 2018): images are drawn
    with replacement, the best trial and epoch is picked on those drawn, and scored on the others. BBC-CV picks with
    twice the noise of the real selection, so its pick is worse, and in simulations it was up to 0.8 standard errors
    of an accuracy too low. Here an image that was drawn w times counts 1 + sqrt(h) (w - 1) in the pick and
    1 - (w - 1) / sqrt(h) in the score, which makes the two independent (coupled bootstrap: Oliveira, Lei and
    Tibshirani, 2021); h = 1 is nearly BBC-CV, and h = 1/2 adds half as much noise. `corrected` is the mean score.
    The interval is its 2.5 % and 97.5 % quantiles; it is wider than it need be where one trial is far ahead. It
    speaks of other images, not of other seeds.

    Raises ValueError where there is no epoch, and where images are fewer than 2 or differ in number.
    """
    candidates = [each for each in correct if len(each)]
    shapes = {each.shape[1:] for each in candidates}
    if not candidates or len(shapes) != 1 or next(iter(shapes))[0] < 2:
        found = [each.shape for each in correct]
        raise ValueError(
            f"a selection needs (epochs, images) with an epoch and the same 2 images or more; found {found}"
        )
    rows = np.concatenate(candidates)
    n_rows, n_images = rows.shape
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=draws).astype(np.float32)
    accuracies = rows.mean(axis=1)
    picked, shift = _picked(rows, accuracies, drawn)
    scores = (accuracies[picked] - shift / HALF**0.5).clip(0, 1)
    winner = int(accuracies.argmax())
    ends = np.cumsum([len(each) for each in correct])
    trial = int(np.searchsorted(ends, winner, side="right"))
    low, high = np.quantile(scores, [0.025, 0.975])
    accuracy, corrected = float(accuracies[winner]), float(scores.mean())
    return Selection(
        trial=trial,
        epoch=winner - int(ends[trial] - len(correct[trial])) + 1,
        accuracy=accuracy,
        corrected=corrected,
        low=float(low),
        high=float(high),
        optimism=accuracy - corrected,
        n_trials=len(candidates),
        n_epochs=n_rows,
        n_images=n_images,
    )


def _picked(
    rows: NDArray[np.bool_], accuracies: NDArray[np.float64], drawn: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the row picked in each draw, the earliest of equals, and by how much drawing changed its accuracy."""
    best, picked = np.full(len(drawn), -np.inf), np.zeros(len(drawn), dtype=np.intp)
    shift = np.zeros(len(drawn))
    each = np.arange(len(drawn))
    for start in range(0, len(rows), BLOCK):
        right = drawn @ rows[start : start + BLOCK].T.astype(np.float32)  # whole numbers: exact
        change = right.astype(np.float64) / rows.shape[1] - accuracies[start : start + BLOCK]
        value = accuracies[start : start + BLOCK] + HALF**0.5 * change
        here = value.argmax(axis=1)
        better = value[each, here] > best
        best[better], picked[better] = value[each, here][better], start + here[better]
        shift[better] = change[each, here][better]
    return picked, shift

"""Validation-loss curves of several seeds: smoothed, with the noise that seeds and images add, tests and intervals.

NumPy alone does the arithmetic; SciPy is imported where a quantile is needed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# So many epochs are kept as they are: the loss falls there by more than it is noisy.
STEEP = 4
# Each tail of the 95 % interval. Redrawing around a mean that is noisy itself widens the interval: with 2.5 % it held
# planted minima in up to 99 % of simulations, with this in 94 to 98 % (tests/analysis/test_epochs_coverage.py), and in
# more only where it is a few epochs wide, since epochs are whole.
TAIL = 0.035
# A difference below this is rounding.
ROUNDING = 1e-12
# Images are read in blocks of this many, so that a memory map is never loaded whole.
BLOCK = 2048


class LossCurves:
    """Validation-loss curves, `losses` (seeds, epochs), and the smoothed ones, `smooth` (seeds, epochs).

    `image_cov` (epochs, epochs) is the covariance that the choice of validation images adds to the mean curve; zero
    where no losses per image are given. `has_noise` tells whether anything is known of the noise at all.
    """

    def __init__(self, losses: Floats, image_losses: Sequence[NDArray[np.floating[Any]]] | None = None) -> None:
        self.losses = losses
        self.n_seeds, self.n_epochs = losses.shape
        self.window = smoothing_window(self.n_epochs)
        self.smooth = losses @ self.window.T
        self.image_cov = np.zeros((self.n_epochs, self.n_epochs))
        if image_losses is not None:
            self.image_cov = _image_covariance(image_losses)
        self.has_noise = self.n_seeds > 1 or image_losses is not None

    def contrast(self, weights: Floats) -> tuple[float, float]:
        """Return the mean over seeds of a weighted sum of epochs, (epochs,) weights, and its standard error.

        Seeds and images are crossed: the variance is that between seeds, over their number, plus that of images.
        """
        per_seed = self.losses @ weights
        variance = float(weights @ self.image_cov @ weights)
        if self.n_seeds > 1:
            variance += float(per_seed.var(ddof=1)) / self.n_seeds
        return float(per_seed.mean()), max(variance, 0.0) ** 0.5

    def significant(self, weights: Floats) -> bool:
        """Whether a weighted sum of epochs is above 0, by a one-sided t-test at 5 % with seeds - 1 degrees of freedom.

        With one seed only images can speak, and the normal distribution stands in for t.
        """
        from scipy.stats import norm, t

        value, error = self.contrast(weights)
        cut = t.ppf(0.95, self.n_seeds - 1) if self.n_seeds > 1 else norm.ppf(0.95)
        return bool(value > cut * error + ROUNDING)

    def rises(self, first: int) -> bool:
        """Whether the least-squares slope from epoch `first`, from 0, to the last is above 0 (one-sided t-test at 5 %).

        Where neither seeds nor images tell the noise, the scatter of the one curve around its line does; that takes
        3 epochs.
        """
        if self.has_noise:
            return self.significant(self.slope(first))
        if self.n_epochs - first < 3:
            return False
        from scipy.stats import linregress

        line = linregress(np.arange(first, self.n_epochs), self.losses[0, first:], alternative="greater")
        return bool(line.slope > ROUNDING and line.pvalue < 0.05)

    def against(self, epoch: int, other: int) -> Floats:
        """Return the weights (epochs,) of the smoothed loss at one epoch less that at another, both from 0."""
        return np.asarray(self.window[epoch] - self.window[other])

    def slope(self, first: int) -> Floats:
        """Return the weights (epochs,) of the least-squares slope from epoch `first`, from 0, to the last."""
        weights = np.zeros(self.n_epochs)
        centred = np.arange(first, self.n_epochs) - (first + self.n_epochs - 1) / 2
        weights[first:] = centred / (centred @ centred)
        return weights

    def lowest_interval(self, draws: int, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return the 95 % interval of the epoch, from 0, at which the smoothed mean is lowest; None without noise.

        A multiplier bootstrap (Wu, 1986) over seeds and images, crossed: each draw adds to the mean curve the seeds'
        deviations from it with normal weights, over the root of S (S - 1) where S is their number, and a normal curve
        with the covariance that images give. The seeds' part is divided by the root of a chi-square over its S - 1
        degrees of freedom, as in Student's t, since the spread of few seeds is itself uncertain: resampling seeds
        as they are falls short of 95 % by as much as 7 points with 5 of them. The interval holds the epochs that are
        lowest in the middle of the draws; an epoch at its edge counts with half of its own draws.
        """
        if not self.has_noise:
            return None
        curves = np.broadcast_to(self.smooth.mean(axis=0), (draws, self.n_epochs))
        if self.n_seeds > 1:
            deviations = (self.smooth - self.smooth.mean(axis=0)) / np.sqrt(self.n_seeds * (self.n_seeds - 1))
            freedom = self.n_seeds - 1
            heavy = np.sqrt(freedom / rng.chisquare(freedom, size=(draws, 1)))
            curves = curves + heavy * (rng.standard_normal((draws, self.n_seeds)) @ deviations)
        if self.image_cov.any():
            values, vectors = np.linalg.eigh(self.window @ self.image_cov @ self.window.T)
            root = vectors * np.sqrt(values.clip(0))
            curves = curves + rng.standard_normal((draws, self.n_epochs)) @ root.T
        share = np.bincount(curves.argmin(axis=1), minlength=self.n_epochs) / draws
        below = np.cumsum(share) - share / 2
        return int(np.argmax(below >= TAIL)), self.n_epochs - 1 - int(np.argmax(below[::-1] <= 1 - TAIL))


def smoothing_window(n_epochs: int) -> Floats:
    """Return the smoothing as a matrix (epochs, epochs): a centred moving mean over 3 epochs.

    Epochs 1 to 4 are kept as they are: the loss falls there by more than it is noisy, and a mean would move an early
    minimum to the right. The last epoch is kept too, so that the window is centred everywhere and a curve that falls
    to its end is not bent upwards. A wider window would hardly be less noisy and blunt a sharp minimum.
    """
    window = np.eye(n_epochs)
    for epoch in range(STEEP, n_epochs - 1):
        window[epoch, epoch - 1 : epoch + 2] = 1 / 3
    return window


def _image_covariance(image_losses: Sequence[NDArray[np.floating[Any]]]) -> Floats:
    """Return what the choice of images adds to the covariance of the mean curve, from (epochs, images) per seed.

    The images' covariance of the seeds' mean holds 1/S of the interaction of seeds with images, which the spread
    between seeds holds already: it is taken out, as in a two-way analysis of variance.
    """
    n_seeds, (n_epochs, n_images) = len(image_losses), image_losses[0].shape
    if n_images < 2:
        return np.zeros((n_epochs, n_epochs))
    centres = [np.asarray(each, dtype=np.float64).mean(axis=1, keepdims=True) for each in image_losses]
    of_mean, of_each = np.zeros((n_epochs, n_epochs)), np.zeros((n_epochs, n_epochs))
    for start in range(0, n_images, BLOCK):
        blocks = [np.asarray(each[:, start : start + BLOCK], dtype=np.float64) for each in image_losses]
        centred = [block - centre for block, centre in zip(blocks, centres, strict=True)]
        mean = sum(centred) / n_seeds
        of_mean += mean @ mean.T
        of_each += sum(each @ each.T for each in centred)
    if n_seeds > 1:
        interaction = (of_each - n_seeds * of_mean) / (n_seeds - 1)
        of_mean = of_mean - interaction / n_seeds
    return np.asarray(of_mean / (n_images - 1) / n_images)

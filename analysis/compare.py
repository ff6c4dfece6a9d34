"""Is one configuration better than another? Accuracies over seeds and test images, compared honestly: pure functions.

What two trainings differ by holds luck of two kinds, of the seeds and of the test images. Both are estimated, and the
few seeds that anyone can afford are paid for in Student's t, so that 5 % of equal pairs seem to differ and no more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.wording import points, probability
from foundation import count

Correct = NDArray[np.bool_]
Floats = NDArray[np.float64]

LEVEL, POWER = 0.05, 0.8
DRAWS = 2000
# Few seeds may agree by chance, and then nothing is left of the variance: at least this share of that between images.
LEAST_OF_IMAGES = 0.25


@dataclass(frozen=True)
class Comparison:
    """The difference in accuracy of two configurations on the same images, as a share in -1..1.

    `difference` is the first less the second, `low` and `high` its 95 % interval, not widened for the number of
    comparisons. `p_value` is that of no difference, two-sided; `p_holm` the same corrected for all `n_comparisons`
    made (Holm, 1979). `standard_error` has `freedom` degrees of freedom. `detectable` is the smallest difference
    that would have been found in 80 % of cases, in the first and strictest step of Holm's method. `n_seeds` counts
    those of the first and of the second. With 1 seed each only the difference is known, and the others are None.
    """

    first: str
    second: str
    difference: float
    n_seeds: tuple[int, int]
    n_images: int
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    standard_error: float | None = None
    freedom: float | None = None
    detectable: float | None = None
    n_comparisons: int = 1
    split: str = "test"

    @property
    def found(self) -> bool:
        """Whether there is a difference: the corrected p-value is below 5 %."""
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def sentence(self) -> str:
        """What may be said of the two, and no more."""
        images = count(self.n_images, f"{self.split} image")
        if self.p_holm is None or self.low is None or self.high is None:
            return (
                f"{self.first} against {self.second}: {points(self.difference)} on {images}; with 1 seed each nothing "
                "is known of the luck of seeds, so no more can be said: raise --seeds"
            )
        holm = f" after Holm over {count(self.n_comparisons, 'comparison')}" if self.n_comparisons > 1 else ""
        p = f"{probability(self.p_holm)}{holm}"
        first, second = self.n_seeds
        seeds = f"{count(first, 'seed')} each" if first == second else f"{first} and {count(second, 'seed')}"
        ends = (100 * self.low, 100 * self.high)
        if not self.found:
            return (
                f"no evidence that {self.first} and {self.second} differ: {points(self.difference)} "
                f"[{ends[0]:+.1f}, {ends[1]:+.1f}], {p}; with {seeds} and {images} {self._would_have_been_found}"
            )
        better, worse = self.first, self.second
        if self.difference < 0:
            better, worse, ends = worse, better, (-ends[1], -ends[0])
        size = points(abs(self.difference), signed=False)
        return f"{better} is better than {worse} by {size} [{ends[0]:.1f}, {ends[1]:.1f}], {p}, {seeds}, {images}"

    @property
    def _would_have_been_found(self) -> str:
        if self.detectable is None or self.detectable >= 1:
            return "no difference, however large, would have been found in 80 % of cases: raise --seeds"
        return f"a difference of {points(self.detectable, signed=False)} would have been found in 80 % of cases"


def compare(
    pairs: Sequence[tuple[str, str]],
    correct: Mapping[str, Correct],
    *,
    split: str = "test",
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Comparison, ...]:
    """Return the comparison of each pair of names, corrected for all of them (Holm, 1979).

    `correct` holds one array (seeds, images) for each name: whether the model of a seed was right about an image.
    The images are the same and in the same order for all names, of the `split` named "test" or "validation"; numbers of
    seeds may differ.

    A crossed bootstrap (Owen, 2007) draws seeds and images with replacement. As it is it sees too many differences
    with few seeds, so its draws are rescaled: to the standard error from the variance components (two-way analysis
    of variance: between the seeds of each configuration, whose spreads may differ, and between images, paired), and
    from normal to Student's t with Welch's and Satterthwaite's degrees of freedom. `detectable` is where the
    noncentral t of those reaches 80 %. A configuration with 1 seed is taken to spread like the other.

    Raises ValueError for no pair, and for arrays that are not of the same images or hold no seed or no two images.
    """
    if not pairs:
        raise ValueError("there is nothing to compare: no pair is given")
    shapes = {name: correct[name].shape for pair in pairs for name in pair}
    if any(len(shape) != 2 or shape[0] < 1 or shape[1] < 2 for shape in shapes.values()) or (
        len({shape[1] for shape in shapes.values()}) > 1
    ):
        raise ValueError(f"comparisons need (seeds, images) of the same 2 images or more; found {shapes}")
    rng = np.random.default_rng(seed)
    found = [
        _compared(*pair, correct[pair[0]], correct[pair[1]], level=LEVEL / len(pairs), draws=draws, rng=rng)
        for pair in pairs
    ]
    corrected = iter(holm([each.p_value for each in found if each.p_value is not None]))
    return tuple(
        replace(each, n_comparisons=len(pairs), split=split, p_holm=None if each.p_value is None else next(corrected))
        for each in found
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the order given, 1 at most (Holm, 1979)."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def mcnemar(first: Correct, second: Correct) -> float:
    """Return the exact two-sided p-value that two models are equally often right (McNemar, 1947; binomial).

    `first` and `second` are (images,): one model each, on the same images. It speaks of these two models, not of
    their configurations. 1 where they are never right about different images; ValueError where shapes differ.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"two models on the same images are needed; found {first.shape} and {second.shape}")
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def _compared(
    name: str, other: str, first: Correct, second: Correct, *, level: float, draws: int, rng: np.random.Generator
) -> Comparison:
    """Return one comparison, not corrected; `level` is that of `detectable`."""
    difference = float(first.mean() - second.mean())
    bare = Comparison(name, other, difference, (len(first), len(second)), first.shape[1])
    if len(first) == len(second) == 1:
        return bare
    error, freedom = standard_error(first, second)
    low, high, p_value = _studentised(_crossed_draws(first, second, draws, rng), difference, error, freedom)
    reach = min(1.0, _detectable(freedom, level) * error)
    return replace(bare, low=low, high=high, p_value=p_value, standard_error=error, freedom=freedom, detectable=reach)


def standard_error(first: Correct, second: Correct) -> tuple[float, float]:
    """Return the standard error of the difference in accuracy, and its degrees of freedom.

    The variance is that between seeds over their number, of both configurations (it holds the interaction of seeds
    with images), plus that between images of the mean difference over their number, less the share of the
    interaction in it, which is in the first part already. Degrees of freedom: Satterthwaite (1946), with each
    configuration's own spread between seeds or with their pooled spread, whichever gives fewer: with 3 seeds
    against 10 its own alone gave false alarms in up to 9 % of simulations.
    """
    n_images = first.shape[1]
    images = float((first.mean(axis=0) - second.mean(axis=0)).var(ddof=1)) / n_images
    parts = [_components(each) for each in (first, second) if len(each) > 1]
    if len(parts) == 1:
        parts *= 2
    n_seeds, seed_freedom = (len(first), len(second)), [freedom for _, _, freedom in parts]
    own = [variance for variance, _, _ in parts]
    mixed = sum(inter / n for n, (_, inter, _) in zip(n_seeds, parts, strict=True)) / n_images
    between_images = max(0.0, images - mixed)
    pooled = float(np.average(own, weights=seed_freedom))
    freedom = min(_freedom(each, n_seeds, seed_freedom, between_images) for each in (own, [pooled, pooled]))
    variance = sum(each / n for each, n in zip(own, n_seeds, strict=True)) + between_images
    variance = max(variance, LEAST_OF_IMAGES * images)
    return variance**0.5, float(np.clip(freedom, 1.0, n_images - 1.0))


def _freedom(
    variances: Sequence[float], n_seeds: Sequence[int], seed_freedom: Sequence[int], between_images: float
) -> float:
    """Return Satterthwaite's degrees of freedom; images are so many that their variance counts as known."""
    parts = [variance / n for variance, n in zip(variances, n_seeds, strict=True)]
    uncertain = sum(part**2 / freedom for part, freedom in zip(parts, seed_freedom, strict=True))
    return (sum(parts) + between_images) ** 2 / uncertain if uncertain > 0 else np.inf


def _components(correct: Correct) -> tuple[float, float, int]:
    """Return the variance of accuracy between seeds, that of seeds and images together, and seeds - 1."""
    n_seeds, n_images = correct.shape
    by_seed, by_image = correct.mean(axis=1), correct.mean(axis=0)
    within = float(by_seed @ (1 - by_seed)) * n_images  # each answer is 0 or 1
    between_images = float(((by_image - by_image.mean()) ** 2).sum()) * n_seeds
    interaction = max(0.0, within - between_images) / ((n_seeds - 1) * (n_images - 1))
    return float(by_seed.var(ddof=1)), interaction, n_seeds - 1


def _crossed_draws(first: Correct, second: Correct, draws: int, rng: np.random.Generator) -> Floats:
    """Return the difference in accuracy (draws,) with seeds and images drawn anew, with replacement.

    Images that every model treats alike are drawn together, which is the same and much faster.
    """
    kinds, counts = np.unique(np.packbits(np.vstack([first, second]), axis=0), axis=1, return_counts=True)
    answers = np.unpackbits(kinds, axis=0, count=len(first) + len(second)).astype(np.float64)
    n_images = first.shape[1]
    accuracy = rng.multinomial(n_images, counts / n_images, size=draws) @ answers.T / n_images
    weights = [rng.multinomial(n, np.full(n, 1 / n), size=draws) / n for n in (len(first), len(second))]
    return np.asarray((accuracy * np.hstack([weights[0], -weights[1]])).sum(axis=1))


def _studentised(drawn: Floats, difference: float, error: float, freedom: float) -> tuple[float, float, float]:
    """Return the 95 % interval and the p-value from draws that are rescaled: see `compare`."""
    from scipy.special import ndtr, stdtrit

    scale = float(drawn.std())
    if error == 0 or scale == 0:
        return difference, difference, float(difference == 0)
    score = (drawn - difference) / scale
    ratio = -np.sign(score) * stdtrit(freedom, ndtr(-np.abs(score)))
    values = difference + error * ratio
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    below = float(np.interp(0.0, np.sort(values), np.linspace(0, 1, len(values))))  # as quantile reads it backwards
    return float(low), float(high), max(2 * min(below, 1 - below), 1 / len(values))


def _detectable(freedom: float, level: float) -> float:
    """Return the difference, in standard errors, that a two-sided t-test at `level` finds in 80 % of cases.

    The root of an estimated variance is too small on the average; this is made up for.
    """
    from scipy.optimize import brentq
    from scipy.special import gammaln, nctdtr, stdtrit

    cut = -float(stdtrit(freedom, level / 2))
    reach = float(brentq(lambda shift: 1 - POWER - nctdtr(freedom, shift, cut), 0.0, 10 * cut + 10))
    shrunk = np.sqrt(2 / freedom) * np.exp(gammaln((freedom + 1) / 2) - gammaln(freedom / 2))
    return reach / float(shrunk)

"""The 95 % interval of the lowest epoch against planted minima, in simulations with noise of seeds and of images."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from analysis.curves import LossCurves

EPOCH = np.arange(1, 31.0)
SHAPES = {
    "falls fast, then rises slowly": 0.6 + 1.6 * np.exp(-EPOCH / 5) + 0.006 * EPOCH,
    "a flat valley": 0.7 + 0.15 * np.log(EPOCH / 15) ** 2,
    "a power law and a rise": 0.4 + 1.5 * EPOCH**-0.7 + 0.008 * EPOCH,
}
SIMULATIONS, DRAWS = 1000, 400


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Thousands of small matrices: threads would spend ten times as long waiting for one another."""
    with threadpool_limits(1):
        yield


def noisy(shape: NDArray[np.float64], n_seeds: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return curves (simulations, seeds, epochs): each seed has its level, its drift, and jitter with a memory."""
    jitter = rng.normal(0, 0.03, (SIMULATIONS, n_seeds, len(shape)))
    for epoch in range(1, len(shape)):
        jitter[..., epoch] = 0.5 * jitter[..., epoch - 1] + 0.75**0.5 * jitter[..., epoch]
    level, drift = rng.normal(0, 0.05, (2, SIMULATIONS, n_seeds, 1))
    return np.asarray(shape + level + drift * EPOCH / len(shape) + jitter)


def coverage(intervals: list[tuple[int, int] | None], shape: NDArray[np.float64]) -> float:
    true = int(shape.argmin())
    return sum(found is not None and found[0] <= true <= found[1] for found in intervals) / len(intervals)


@pytest.mark.parametrize("n_seeds", [5, 10])
@pytest.mark.parametrize("name", SHAPES)
def test_the_interval_covers_the_planted_minimum(name: str, n_seeds: int) -> None:
    rng = np.random.default_rng([len(name), n_seeds])
    found = [LossCurves(each).lowest_interval(DRAWS, rng) for each in noisy(SHAPES[name], n_seeds, rng)]
    assert 0.92 <= coverage(found, SHAPES[name]) <= 0.98
    widths = [interval[1] - interval[0] + 1 for interval in found if interval]
    assert 5 < np.mean(widths) < 15  # it says something, and more than one epoch is in question


@pytest.mark.parametrize("n_seeds", [1, 5, 10])
def test_it_covers_it_where_images_differ_too(n_seeds: int) -> None:
    """With one seed, noise of seeds is absent: the interval speaks of other images only."""
    rng = np.random.default_rng(n_seeds)
    shape = SHAPES["falls fast, then rises slowly"]
    n_images = 80
    curves = np.broadcast_to(shape, (SIMULATIONS, 1, 30)) if n_seeds == 1 else noisy(shape, n_seeds, rng)
    found = []
    for each in curves:
        hardness = rng.gamma(0.5, 1, (1, n_images)) - 0.5
        overfit = rng.normal(0, 0.3, (1, n_images)) * np.linspace(-1, 1, 30)[:, None]
        own = rng.normal(0, 0.2, (n_seeds, 30, n_images))  # each seed has its own trouble with each image
        images = (each[:, :, None] + hardness + overfit + own).astype(np.float32)
        found.append(LossCurves(images.mean(axis=2, dtype=np.float64), list(images)).lowest_interval(DRAWS, rng))
    assert 0.92 <= coverage(found, shape) <= 0.98

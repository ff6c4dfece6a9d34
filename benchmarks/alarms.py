"""How often a comparison finds a difference that is not there, and one as large as it says it could find."""

from typing import Any

import numpy as np
from measure import options, table, tell
from scipy.stats import norm

from analysis.compare import Comparison, Correct, compare

SIMULATIONS, IMAGES, DRAWS, ACCURACY = 1000, 200, 200, 0.8
# Seeds of the one and of the other contender, and how much the seed alone changes the accuracy.
SETTINGS = ((3, 3, 0.0), (3, 3, 0.02), (5, 5, 0.01), (10, 10, 0.01), (3, 8, 0.02))


def main() -> None:
    """Simulate pairs of contenders in every setting, and tell."""
    asked = options(__doc__).parse_args()
    rows: list[tuple[Any, ...]] = []
    for n_first, n_second, sigma in SETTINGS:
        equal = pairs(n_first, n_second, sigma, 0.0, seed=n_first)
        planted = float(np.mean([each.detectable for each in equal]))
        differ = pairs(n_first, n_second, sigma, planted, seed=n_second)
        shares = (_share_found(equal), f"{100 * planted:.1f}", _share_found(differ))
        rows.append((f"{n_first} and {n_second}", f"{100 * sigma:g}", *shares))
    columns = ("seeds", "seed's deviation, points", "called different where equal, %", "difference built in, points")
    text = table((*columns, "found, %"), rows)
    text += f"\n\n{SIMULATIONS:,} simulated pairs of contenders a setting and column, one comparison each, {IMAGES} "
    text += (
        f"images, accuracies of {100 * ACCURACY:g} %, {DRAWS} bootstrap draws (an analysis takes 2,000). At most 5 % "
    )
    text += "are to be called different where they are equal. Built in is the mean of the differences that the "
    text += "comparisons of the equal ones say they could have found in 80 % of cases."
    tell("alarms.py", "Whether a comparison is right", text, asked.keep)


def _share_found(comparisons: list[Comparison]) -> str:
    return f"{100 * np.mean([each.found for each in comparisons]):.1f}"


def trained(
    accuracy: float, n_seeds: int, sigma: float, hardness: np.ndarray, rng: np.random.Generator, n: int = SIMULATIONS
) -> Correct:
    """Return what models got right, (simulations, seeds, images): hard images are hard for all of them.

    Trainings with other seeds have other accuracies, with a standard deviation of about `sigma`, beside the luck of
    each with each image.
    """
    slope = norm.pdf(norm.ppf(0.8)) / 1.8
    seeds = rng.normal(0, sigma / slope, (n, n_seeds, 1))
    total = np.sqrt(1 + 1.5**2 + (sigma / slope) ** 2)
    own = rng.standard_normal((n, n_seeds, hardness.shape[-1]), dtype=np.float32)
    return np.asarray(norm.ppf(accuracy) * total + seeds + own > 1.5 * hardness)


def pairs(n_first: int, n_second: int, sigma: float, difference: float, seed: int) -> list[Comparison]:
    """Return the comparisons of simulated contenders, the second of which is worse by `difference`."""
    rng = np.random.default_rng(seed)
    hardness = rng.standard_normal((SIMULATIONS, 1, IMAGES), dtype=np.float32)
    first = trained(ACCURACY, n_first, sigma, hardness, rng)
    second = trained(ACCURACY - difference, n_second, sigma, hardness, rng)
    return [
        compare([("a", "b")], {"a": one, "b": other}, seed=seed, draws=DRAWS)[0]
        for one, other in zip(first, second, strict=True)
    ]


if __name__ == "__main__":
    main()

"""How much the seed alone changes an accuracy, and which configurations cannot be told apart for it: pure functions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.wording import points
from foundation import count


@dataclass(frozen=True)
class SeedSpread:
    """The standard deviation of accuracy between seeds, `sigma`, as a share; `freedom` its degrees of freedom.

    `sigma` is None, and `freedom` 0, where no configuration has 2 seeds.
    """

    sigma: float | None
    freedom: int

    @property
    def sentence(self) -> str:
        """What it means for a reader."""
        if self.sigma is None:
            return "how much the seed alone changes the accuracy is not known: no configuration was trained twice"
        spread = points(self.sigma, signed=False)
        of = f"{count(self.freedom, 'degree')} of freedom"
        return f"the seed alone changes the accuracy with a standard deviation of {spread} ({of})"


def seed_spread(accuracies: Mapping[str, Sequence[float]]) -> SeedSpread:
    """Return the standard deviation of accuracy between seeds, pooled over configurations.

    `accuracies` holds the accuracies in 0..1 of each configuration, one for each seed. Every configuration counts
    with its number of seeds less 1; their spreads are taken to be alike.
    """
    several = [np.asarray(each, dtype=np.float64) for each in accuracies.values() if len(each) > 1]
    freedom = sum(len(each) - 1 for each in several)
    if not freedom:
        return SeedSpread(None, 0)
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in several)
    return SeedSpread(math.sqrt(squares / freedom), freedom)


def best_group(accuracies: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    """Return the configurations that cannot be told from the best for the luck of seeds, best first.

    `accuracies` is as in `seed_spread`, with one seed at least for each. A configuration belongs to the group if its
    mean is within 2 sigma sqrt(1/n1 + 1/n2) of the best mean, n being numbers of seeds: two standard errors of the
    difference. Where sigma is not known that is all of them. The group is empty where there is no configuration.
    """
    means = {name: float(np.mean(each)) for name, each in accuracies.items()}
    order = sorted(means, key=lambda name: -means[name])
    sigma = seed_spread(accuracies).sigma
    if sigma is None or not order:
        return tuple(order)
    best = order[0]

    def reach(name: str) -> float:
        return 2 * sigma * math.sqrt(1 / len(accuracies[best]) + 1 / len(accuracies[name]))

    return tuple(name for name in order if means[best] - means[name] <= reach(name))

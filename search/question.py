"""What a search method is asked, and all it may know when it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from foundation import seed_from
from spaces import Space

Config = dict[str, Any]
Prices = Mapping[str, Sequence[tuple[Any, float]]]


@dataclass(frozen=True)
class Observation:
    """A configuration and how it did: rank 0 is the best; failed, running and refused ones rank last."""

    config: Config
    rank: int


@dataclass(frozen=True)
class Question:
    """What a method is asked: the next configuration of one architecture.

    `index` counts the architecture's trials (0 is the baseline, which no method proposes), `refused` the
    configurations of earlier trials that were refused, `draw` those of this one. `observations` are the architecture's
    trials in the order they were proposed, the baseline first, and then what was refused. `prices` are, by knob and for
    its values in order, what is taken off the logarithm of the improvement to be expected; ranges have three values,
    and what lies between them is interpolated.
    """

    space: Space
    index: int
    refused: int
    draw: int
    seed: int
    observations: Sequence[Observation] = ()
    prices: Prices | None = None

    def rng(self) -> Random:
        """Return the random numbers of this question, and of no other."""
        return Random(self.seed_of_draw())

    def seed_of_draw(self) -> int:
        """Return the seed of this question."""
        return seed_from(self.seed, self.space.architecture, self.index, self.draw)

"""Ranges that were too narrow: the best trials lie at their edge. A pure function."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.importance import position
from foundation import count
from spaces.domains import Choice, Domain, bare, draw, grid, is_number, plain
from spaces.knobs import Among, Between, Knob
from spaces.space import Space

# The outer share of a range, on its own scale, that is its edge.
EDGE = 0.05
# The best trials that are looked at: a tenth of those in which the knob is active, and at least so many.
BEST_SHARE, FEWEST_BEST = 10, 5
LEVEL = 0.01
DRAWS = 2000


@dataclass(frozen=True)
class Edge:
    """A knob whose best trials lie at one end of its range, which may be widened there.

    `at_high` tells which end, `limit` is its value, `best` the value of the best trial. Of the `n_best` best trials
    `n_edge` lie there; `p_value` is the probability of as many by chance.
    """

    knob: str
    at_high: bool
    limit: Any
    best: Any
    n_edge: int
    n_best: int
    p_value: float

    @property
    def sentence(self) -> str:
        """What was found, and what to do."""
        end = "highest" if self.at_high else "lowest"
        return (
            f"{self.knob}: the best value, {plain(self.best)}, is at the edge of its range: {self.n_edge} of the best "
            f"{count(self.n_best, 'trial')} are next to the {end} value allowed, {plain(self.limit)}: widen it"
        )


def at_the_edge(
    space: Space,
    rows: Sequence[tuple[Mapping[str, Any], float]],
    *,
    higher_is_better: bool = True,
    on_grid: bool = False,
) -> tuple[Edge, ...]:
    """Return the numeric knobs whose best trials lie at an edge of their range, in the order of the space.

    `rows` holds the configuration and the score of each trial, all at the same epoch; scores that are not finite are
    left out. An edge is the outer 5 % of a range on its own scale, logarithmic or not, or the outermost value where
    values are further apart. Looked at are the best tenth of the trials in which the knob is active, 5 at least. The
    best trial must lie at the edge, and so many of the others that the probability of it is below 1 % (binomial),
    were they drawn evenly from the range; `on_grid` from the points of its grid, two of which are its ends. Knobs that
    may not be widened at that end are left out. Nothing is found where fewer than 5 trials have a knob.
    """
    finite = [row for row in rows if math.isfinite(row[1])]
    order = sorted(finite, key=lambda row: -row[1] if higher_is_better else row[1])
    found = []
    for name, knob in space.knobs.items():
        values = [config[name] for config, _ in order if name in config]
        if len(values) >= FEWEST_BEST and _numeric(knob.domain):
            best = values[: max(FEWEST_BEST, len(values) // BEST_SHARE)]
            inner, rng = bare(knob.domain), random.Random(name)
            drawn = grid(knob.domain) if on_grid else [draw(inner, rng) for _ in range(DRAWS)]
            found += [edge for at_high in (False, True) if (edge := _edge(name, knob, best, drawn, at_high=at_high))]
    return tuple(found)


def _numeric(domain: Domain) -> bool:
    """Whether a range has an order, and more than one value."""
    inner = bare(domain)
    return not isinstance(inner, Choice) or (len(inner.options) > 1 and all(map(is_number, inner.options)))


def _edge(name: str, knob: Knob, best: Sequence[Any], drawn: Sequence[Any], *, at_high: bool) -> Edge | None:
    """Return the finding at one end of a knob's range, None where there is none; `drawn` are values by chance."""
    from scipy.stats import binom

    inner = bare(knob.domain)
    limit = _limit(inner, at_high=at_high)

    def near(value: Any) -> bool:
        return bool(value == limit or abs(position(inner, value) - float(at_high)) <= EDGE)

    n_edge = sum(map(near, best))
    chance = max(sum(map(near, drawn)) / len(drawn), 1 / DRAWS)
    p_value = float(binom.sf(n_edge - 1, len(best), chance))
    if not near(best[0]) or p_value >= LEVEL or not _widens(knob, limit, at_high=at_high):
        return None
    return Edge(name, at_high, limit, best[0], n_edge, len(best), p_value)


def _limit(domain: Domain, *, at_high: bool) -> Any:
    inner = bare(domain)
    if isinstance(inner, Choice):
        return max(inner.options) if at_high else min(inner.options)
    return inner.high if at_high else inner.low


def _widens(knob: Knob, limit: Any, *, at_high: bool) -> bool:
    """Whether a value beyond the limit is allowed."""
    match knob.allowed:
        case Between(low, high):
            return bool(limit < high if at_high else limit > low)
        case Among(values):
            return any(value > limit if at_high else value < limit for value in values if is_number(value))
    return True

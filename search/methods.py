"""The search methods: one function each, named as on the command line.

A method is a way to propose configurations and whether trials are stopped early. A proposal is a pure function of
its arguments: the same ones give the same configuration in any process, after any crash.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from cluster.connect import import_beside
from foundation import seed_from
from search.question import Config, Question
from spaces import Space
from spaces.domains import When, active
from spaces.domains import grid as grid_values

Propose = Callable[[Question], Config | None]

STARTUP = 8  # random trials of an architecture before TPE's model is trusted, its baseline counted


@dataclass(frozen=True)
class Method:
    """A way to propose, and whether rungs stop trials early. `propose` returns None when it has nothing left.

    Only a method that `learns` is given the observations so far. `points` says how many configurations of a space it
    can propose after the baseline; None where that has no end.
    """

    propose: Propose
    stops_early: bool
    learns: bool = False
    points: Callable[[Space], int] | None = None


def random() -> Method:
    """Draw every configuration independently (random search; Bergstra and Bengio, 2012)."""
    return Method(_draw, stops_early=False)


def grid() -> Method:
    """Walk a grid: every option of a choice, three points of a range.

    The order is shuffled by the seed, so that the first trials of a grid too large to finish are spread over it.
    """
    return Method(_grid_point, stops_early=False, points=grid_size)


def asha() -> Method:
    """Draw at random, and stop the worse two thirds at each rung (Li et al., 2020)."""
    return Method(_draw, stops_early=True)


def tpe() -> Method:
    """Draw where good configurations were dense before (tree-structured Parzen estimator; Bergstra et al., 2011)."""
    return Method(_tpe, stops_early=False, learns=True)


def tpe_asha() -> Method:
    """Propose by TPE, and stop the worse two thirds at each rung."""
    return Method(_tpe, stops_early=True, learns=True)


METHODS: dict[str, Callable[[], Method]] = {method.__name__: method for method in (random, grid, asha, tpe, tpe_asha)}


def _draw(question: Question) -> Config:
    return question.space.draw(question.rng())


def _tpe(question: Question) -> Config:
    """Propose by TPE (Bergstra et al., 2011), at random for the first 8 trials of the architecture.

    hyperopt takes 1.7 s to import, which is done beside the trials before it is needed.
    """
    if question.index < STARTUP:
        if question.index >= STARTUP // 2:
            import_beside("search.tpe")
        return _draw(question)
    from search.tpe import suggest

    return suggest(question)


def grid_axes(space: Space) -> list[list[Config]]:
    """Return the axes of the space's grid: a knob and all that hang on it share one axis."""
    axes: dict[str, list[Config]] = {}
    root: dict[str, str] = {}
    for name, knob in space.knobs.items():  # parents come before what hangs on them
        domain = knob.domain
        if isinstance(domain, When):
            root[name] = root[domain.knob]
            axes[root[name]] = [
                point | extra
                for point in axes[root[name]]
                for extra in ([{name: value} for value in grid_values(domain)] if active(domain, point) else [{}])
            ]
        else:
            root[name] = name
            axes[name] = [{name: value} for value in grid_values(domain)]
    return list(axes.values())


def grid_size(space: Space) -> int:
    """Return the number of points of the space's grid."""
    return math.prod(len(axis) for axis in grid_axes(space))


def _grid_point(question: Question) -> Config | None:
    """Return the next point of the grid: each exactly once, by a stride that has no common divisor with its size."""
    axes, size = grid_axes(question.space), grid_size(question.space)
    position = question.index - 1 + question.refused + question.draw
    if position >= size:
        return None
    stride = seed_from(question.seed, "stride") % size
    while math.gcd(stride, size) != 1:
        stride += 1
    number = (seed_from(question.seed, "start") + position * stride) % size
    point: Config = {}
    for axis in axes:
        number, digit = divmod(number, len(axis))
        point |= axis[digit]
    return {name: point[name] for name in question.space.knobs if name in point}

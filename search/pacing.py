"""How long the configurations of a request take to train: a few are trained for a moment, the others reckoned."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cluster.connect import run_in_slots
from cluster.resources import Place
from foundation import RequestError
from search.flops import flops
from search.methods import METHODS, STARTUP
from search.question import Question
from search.request import Request
from spaces import Space

if TYPE_CHECKING:
    from trainables.pace import Pace

DRAWS, MOST_DRAWS = 24, 50  # configurations of each architecture whose operations are counted; tries for each
TRAINED = (0.05, 0.35, 0.65, 0.95)  # where those that are trained lie among them, by their operations
SECONDS = 30.0
MOST_SIDE_BY_SIDE = 16
REPORT_SECONDS = 0.02  # of an epoch: its row, its checkpoint, its TensorBoard events
LEAST_ERROR = 0.05  # of a pace, as a share: machines are noisy

Drawn = list[tuple[Mapping[str, Any], int]]  # configurations, each with its operations for an image


@dataclass(frozen=True)
class Paces:
    """What an architecture's configurations take: seconds per epoch, and seconds to build a model.

    The first is the baseline; the first `known` are what a search proposes, in its order, the others are drawn from the
    same space. `error` is that of a single pace, as a share; `most` is how many trials it can have, None without end.
    """

    architecture: str
    epoch_seconds: tuple[float, ...]
    known: int
    begin_seconds: float
    error: float
    most: int | None = None


def measured_paces(request: Request, calibrated: Mapping[str, Any], place: Place) -> list[Paces]:
    """Return the paces of every architecture: its baseline and four more are trained, for half a minute in all.

    They are trained side by side, as trials are, at the settings of a `calibrated` row. Raises `RequestError` where no
    configuration can be built.
    """
    drawn = {name: _drawn(request, space) for name, space in request.spaces.items()}
    known = _trained(request, calibrated, place, drawn)
    n_train = sum(request.cache.counts["train"].values())
    paces = []
    for name, configs in drawn.items():
        image_seconds = {index: pace.seconds_per_image for index, pace in known[name].items()}
        every, error = reckoned([count for _, count in configs], image_seconds)
        begin = sum(pace.begin_seconds for pace in known[name].values()) / len(known[name])
        of_epoch = tuple(n_train * each + REPORT_SECONDS for each in every)
        learns = request.spec.method.startswith("tpe")
        points = METHODS[request.spec.method]().points
        most = 1 + points(request.spaces[name]) if points else None
        paces.append(Paces(name, of_epoch, min(STARTUP, len(every)) if learns else len(every), begin, error, most))
    return paces


def _trained(
    request: Request, calibrated: Mapping[str, Any], place: Place, drawn: Mapping[str, Drawn]
) -> dict[str, dict[int, "Pace"]]:
    """Return what was measured of some of the drawn configurations, by architecture and their place among them."""
    from trainables.pace import measure_pace
    from trainables.samples import Sample
    from trainables.settings import Settings

    chosen = [(name, index) for name, configs in drawn.items() for index in _spread([count for _, count in configs])]
    chosen.sort(key=lambda each: -drawn[each[0]][each[1]][1])  # large ones apart, so that all slots end together
    beside = min(place.slots, len(chosen), MOST_SIDE_BY_SIDE)
    settings = {name: Settings(**each) for name, each in calibrated["settings"].items()}
    cache = request.cache
    parts = [chosen[first::beside] for first in range(beside)]
    samples = [
        [Sample(name, drawn[name][index][0], request.sources.get(name)) for name, index in part] for part in parts
    ]
    fixed = (settings, cache.image_shape, len(cache.classes), request.val_share, request.spec.epochs, SECONDS)
    measured = run_in_slots(measure_pace, place.slot, [(part, *fixed) for part in samples])
    known: dict[str, dict[int, Pace]] = {name: {} for name in drawn}
    for part, paces in zip(parts, measured, strict=True):
        for (name, index), pace in zip(part, paces, strict=True):
            known[name][index] = pace
    return known


def reckoned(flops: Sequence[float], known: Mapping[int, float]) -> tuple[list[float], float]:
    """Return the seconds of every configuration, given those of a few, and the error of one that is reckoned.

    Seconds are a constant and so much per operation, neither below 0, fitted so that the relative errors are small
    (least squares). The error is the standard deviation of the logarithms of known over fitted seconds.
    """
    from scipy.optimize import nnls

    order = sorted(known)
    seconds = [known[index] for index in order]
    rows = [[1 / each, flops[index] / each] for index, each in zip(order, seconds, strict=True)]
    constant, slope = map(float, nnls(rows, [1.0] * len(rows))[0])
    fitted = [constant + slope * each for each in flops]
    errors = [math.log(known[index] / fitted[index]) for index in order]
    error = math.sqrt(sum(each**2 for each in errors) / max(1, len(errors) - 2))
    return [known.get(index, each) for index, each in enumerate(fitted)], max(LEAST_ERROR, error)


def _spread(flops: Sequence[int]) -> list[int]:
    """Return which configurations are trained: the first, which is the baseline, and some from small to large."""
    others = sorted(range(1, len(flops)), key=lambda index: flops[index])
    return sorted({0, *(others[round(share * (len(others) - 1))] for share in TRAINED if others)})


def _drawn(request: Request, space: Space) -> Drawn:
    """Return the configurations that a search begins with, as far as they can be built, with their operations.

    They are the baseline and what the method proposes before it has learned anything; those after them are drawn too,
    whatever the method.
    """
    name, source = space.architecture, request.sources.get(space.architecture)
    shape, n_classes = request.cache.image_shape, len(request.cache.classes)
    propose = METHODS["grid" if request.spec.method == "grid" else "random"]().propose
    found: Drawn = []
    for index in range(min(DRAWS, request.spec.trials) + 1):
        for draw in range(MOST_DRAWS):
            question = Question(space, index, 0, draw, request.spec.seed)
            config = dict(space.baseline) if index == draw == 0 else propose(question)
            if config is not None and not request.preflight(name, config).impossible:
                found.append((config, flops(name, config, shape, n_classes, source, request.spec.epochs).epoch))
                break
    if not found:
        raise RequestError(f"{name}: none of the first configurations can be built for this data")
    return found

"""Which hyperparameters mattered: the share of the differences between scores that each explains. Pure functions."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.wording import percent
from foundation import count
from spaces.domains import Choice, Domain, Integer, LogUniform, Uniform, active, bare, draw, is_number
from spaces.space import Space

Floats = NDArray[np.float64]

# Fewer trials, or a forest that explains less of trials it has not seen, and no figures are given.
FEWEST_TRIALS, LEAST_EXPLAINED = 20, 0.1
# Where a knob is not active. Positions are in 0..1.
ABSENT = -1.0
SPLITS, TREES = 30, 20
# Configurations drawn from the space; in how many of them each knob is varied, and at how many places of its range.
BACKGROUND, VARIED, PLACES = 512, 48, 6

UNEVEN = (
    "TPE does not sample evenly: where it rarely looked these shares are guesses, and a knob that it settled early "
    "seems less important than it was"
)


@dataclass(frozen=True)
class KnobImportance:
    """The share of the variance of scores that a knob explains on its own, and its 90 % interval.

    A share near 0 may come out below it, since it is estimated without bias.
    """

    knob: str
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """What mattered for an architecture's scores at one epoch, most important first, or why that is not known.

    `knobs` is empty where there is a `reason`. `explained` is the share of the variance of scores of trials that the
    forest had not seen, None where it was not fitted. `caution` is the sentence on uneven sampling, None for methods
    that sample evenly.
    """

    architecture: str
    epoch: int
    n_trials: int
    knobs: tuple[KnobImportance, ...]
    explained: float | None
    reason: str | None
    caution: str | None

    @property
    def sentence(self) -> str:
        """Which trials and which epoch this speaks of, and what it says."""
        of = f"{self.architecture}, {count(self.n_trials, 'trial')} at epoch {self.epoch}"
        if self.reason:
            return f"{of}: {self.reason}"
        said = [
            f"{each.knob} {100 * each.share:.0f} % [{100 * each.low:.0f}, {100 * each.high:.0f}]" for each in self.knobs
        ]
        caution = f"; {self.caution}" if self.caution else ""
        return f"{of}, of stopped ones too: {', '.join(said[:3])}{caution}"


def importance(
    space: Space,
    rows: Sequence[tuple[Mapping[str, Any], float]],
    epoch: int,
    *,
    sampled_evenly: bool,
    seed: int = 0,
    splits: int = SPLITS,
) -> Importance:
    """Return how much of the variance of scores each knob of a space explains on its own.

    `rows` holds the configuration and the score at `epoch`, from 1, of each trial that got there, stopped later or
    not; scores that are not finite are left out. Knobs of a single value have no share.

    Functional ANOVA with random forests (Hutter, Hoos and Leyton-Brown, 2014): a knob's main effect is the forest's
    mean prediction at each of its values, over configurations drawn evenly from the space, and its share is the
    variance of that effect over the variance of all predictions. The variance of a fitted effect is above 0 for any
    knob; so trials are split in two halves at random, a forest is fitted to each, and the covariance of the two is
    taken, which is 0 on the average for a knob that does nothing. That is done again and again; the share is the
    mean and the interval the 5 % and 95 % quantiles over these splits. A knob counts where it is active only, in
    proportion to how often it is. What the shares leave to 100 % is interactions. Forests see strong knobs a little
    too strongly and weak ones too weakly.

    With fewer than 20 trials, scores that are all equal, or a forest that explains less than 10 % of the variance
    of trials it has not seen (out of bag), there is a reason instead of figures.
    """
    kept = [(config, score) for config, score in rows if math.isfinite(score)]
    scores = np.array([score for _, score in kept])
    names = [name for name, knob in space.knobs.items() if not _single(knob.domain)]
    caution = None if sampled_evenly else UNEVEN

    def result(knobs: Sequence[KnobImportance] = (), explained: float | None = None, reason: str = "") -> Importance:
        return Importance(space.architecture, epoch, len(kept), tuple(knobs), explained, reason or None, caution)

    if len(kept) < FEWEST_TRIALS:
        return result(reason=f"not enough trials: {FEWEST_TRIALS} are needed")
    if not names or np.ptp(scores) == 0:
        return result(reason="no scores differ")
    trials = np.array([[position(space.knobs[name].domain, config.get(name)) for name in names] for config, _ in kept])
    explained = _out_of_bag(trials, scores, seed)
    if explained < LEAST_EXPLAINED:
        said = f"the configurations explain {percent(max(explained, 0.0))} of what trials not yet seen scored"
        return result(explained=explained, reason=f"not enough trials: {said}, {percent(LEAST_EXPLAINED)} are needed")
    shares = _shares(space, names, trials, scores, seed, splits)
    low, high = np.quantile(shares, [0.05, 0.95], axis=0)
    found = [
        KnobImportance(name, *(min(1.0, float(figure)) for figure in figures))
        for name, *figures in zip(names, shares.mean(axis=0), low, high, strict=True)
    ]
    return result(sorted(found, key=lambda each: -each.share), explained)


def _single(domain: Domain) -> bool:
    inner = bare(domain)
    return isinstance(inner, Choice) and len(inner.options) == 1


def position(domain: Domain, value: Any) -> float:
    """Return where a value lies in its range, 0 to 1 on the range's own scale; `ABSENT` for None."""
    if value is None:
        return ABSENT
    match bare(domain):
        case Choice(options):
            numbers = all(map(is_number, options))
            order = sorted(options) if numbers else list(options)
            return order.index(value) / (len(order) - 1)
        case LogUniform(low, high) | Integer(low, high, _, True):
            return math.log(value / low) / math.log(high / low)
        case Uniform(low, high) | Integer(low, high):
            return float((value - low) / (high - low))


def _places(domain: Domain, rng: random.Random) -> list[Any]:
    """Return values of a domain to vary a knob over: all of a choice, else quantiles of draws, all alike likely."""
    inner = bare(domain)
    if isinstance(inner, Choice):
        return list(inner.options)
    drawn = sorted(draw(domain, rng) for _ in range(101 * PLACES))
    return drawn[50::101]


def _forest(trees: int, seed: int, **more: Any) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    # With a third of the knobs at each split, a weak one gets its chance beside a strong one.
    return RandomForestRegressor(trees, max_features=1 / 3, random_state=seed, **more)


def _out_of_bag(trials: Floats, scores: Floats, seed: int) -> float:
    """Return the share of the variance of scores that a forest explains of trials that each tree has not seen."""
    forest = _forest(10 * TREES, seed, oob_score=True).fit(trials, scores)
    return float(forest.oob_score_)


def _shares(space: Space, names: Sequence[str], trials: Floats, scores: Floats, seed: int, splits: int) -> Floats:
    """Return each knob's share for each split, (splits, knobs): see `importance`."""
    probes, where, weights = _probes(space, names, random.Random(seed))
    rng = np.random.default_rng(seed)
    effects, totals = np.zeros((splits, len(names))), np.zeros(splits)
    for split in range(splits):
        order = rng.permutation(len(scores))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        predicted = []
        for half in halves:
            forest = _forest(TREES, int(rng.integers(2**31))).fit(trials[half], scores[half])
            predicted.append(forest.predict(probes))
        one, other = (each[:BACKGROUND] - each[:BACKGROUND].mean() for each in predicted)
        totals[split] = one @ other / BACKGROUND
        for knob, cells in enumerate(where):
            one, other = (each[cells].mean(axis=1) for each in predicted)
            effects[split, knob] = weights[knob] * ((one - one.mean()) @ (other - other.mean())) / len(cells)
    return np.asarray(effects / max(float(totals.mean()), np.finfo(float).tiny))


def _probes(
    space: Space, names: Sequence[str], rng: random.Random
) -> tuple[Floats, list[NDArray[np.intp]], list[float]]:
    """Return the configurations to predict, where each knob's are among them, and how often each knob is active.

    The first ones are the background: drawn from the space. The others are the same with one knob moved, and with
    the knobs that depend on it put in or left out as they must be; (places, configurations where active) per knob.
    """
    drawn = [{name: draw(knob.domain, rng) for name, knob in space.knobs.items()} for _ in range(BACKGROUND)]
    rows = [_encoded(space, names, values) for values in drawn]
    where, weights = [], []
    for name in names:
        having = [values for values, row in zip(drawn[:VARIED], rows, strict=False) if row[names.index(name)] != ABSENT]
        places = _places(space.knobs[name].domain, rng)
        where.append(np.arange(len(rows), len(rows) + len(places) * len(having)).reshape(len(places), len(having)))
        weights.append(len(having) / VARIED)
        rows += [_encoded(space, names, {**values, name: place}) for place in places for values in having]
        if not having:  # so rarely active that no configuration drawn has it
            where[-1] = np.zeros((1, 1), dtype=np.intp)
    return np.array(rows), where, weights


def _encoded(space: Space, names: Sequence[str], values: Mapping[str, Any]) -> list[float]:
    """Return the positions of the active knobs among `values`, which holds one for every knob of the space."""
    config: dict[str, Any] = {}
    for name, knob in space.knobs.items():
        if active(knob.domain, config):
            config[name] = values[name]
    return [position(space.knobs[name].domain, config.get(name)) for name in names]

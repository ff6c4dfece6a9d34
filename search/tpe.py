"""TPE proposals: observations go to hyperopt as ranks, and a configuration comes back.

Each proposal is a pure function of the observations: what is kept from one to the next is what hyperopt makes of a
space alone, and configurations as it takes them. It is given arrays, where its own `tpe.suggest` goes through a
document of each observation: the same configurations, at 10,000 observations in a tenth of the time.
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from hyperopt import hp, pyll, tpe
from hyperopt.base import Domain as HyperoptDomain

from search.question import Config, Observation, Prices, Question
from spaces import Space
from spaces.domains import Choice, Integer, LogUniform, Uniform, active, bare

CANDIDATES, GAMMA, PRIOR_WEIGHT = 24, 0.25, 1.0  # hyperopt's defaults
MOST_GOOD = 25  # of all observations: gamma times the root of their number, and no more
SPACES_KEPT = 16

Floats = npt.NDArray[np.float64]


def suggest(question: Question) -> dict[str, Any]:
    """Return a configuration by TPE (Bergstra et al., 2011).

    Only the rank of observations counts. A knob that is inactive in a configuration teaches nothing about itself.
    """
    space = question.space
    model = _model(json.dumps(space.rows()))
    raw = model.drawn(space, question.observations, question.seed_of_draw(), question.prices or {})
    config: dict[str, Any] = {}
    for name, knob in space.knobs.items():
        if active(knob.domain, config):
            config[name] = _value(name, space, raw[name])
    return config


@lru_cache(SPACES_KEPT)
def _model(rows: str) -> "_Model":
    return _Model(Space.from_rows(json.loads(rows)))


class _Model:
    """hyperopt's estimator of one space, as a graph of expressions that is evaluated for each proposal."""

    def __init__(self, space: Space) -> None:
        self.names = tuple(space.knobs)
        self.domain = HyperoptDomain(lambda _: 0.0, {name: _expression(name, space) for name in self.names})
        self.observed, self.losses, posterior = tpe.build_posterior_wrapper(self.domain, PRIOR_WEIGHT, GAMMA)
        self.posterior = pyll.as_apply(posterior)
        self.lines = {name: pyll.Literal(name) for name in self.names}
        for name, node in self.posterior.pos_args[1].named_args:  # of 24 candidates, that of the best score
            candidates, _, elsewhere = node.pos_args
            node.pos_args[2] = elsewhere + pyll.scope.price_of(candidates, self.lines[name])
        self.splits = [node for node in pyll.dfs(self.posterior) if node.name == "ap_split_trials"]
        self._known: dict[int, tuple[Config, bytes]] = {}  # by id, with the object that keeps the id its own

    def drawn(self, space: Space, observations: Sequence[Observation], seed: int, prices: Prices) -> dict[str, float]:
        """Return hyperopt's number of each knob for the configuration proposed after these observations."""
        count = len(observations)
        ranks = np.array([seen.rank for seen in observations], dtype=np.float64)
        values = np.frombuffer(b"".join(self._numbers(space, seen.config) for seen in observations))
        values = values.reshape(count, len(self.names))
        there = ~np.isnan(values)
        numbers = {name: np.flatnonzero(there[:, column]) for column, name in enumerate(self.names)}
        known = {name: values[numbers[name], column] for column, name in enumerate(self.names)}
        memo: dict[Any, Any] = {
            self.domain.s_new_ids: list(range(count + 2, count + 2 + CANDIDATES)),
            self.domain.s_rng: np.random.default_rng(seed),
            self.losses["idxs"]: np.arange(count),
            self.losses["vals"]: ranks,
            self.observed["idxs"]: numbers,
            self.observed["vals"]: known,
        }
        memo |= self._split(ranks, numbers, known)
        memo |= {line: _line(name, space, prices.get(name, ())) for name, line in self.lines.items()}
        _, found = pyll.rec_eval(self.posterior, memo=memo, print_node_on_error=False)
        return {name: found[name][0] for name in self.names}

    def _split(
        self, ranks: Floats, numbers: dict[str, npt.NDArray[Any]], known: dict[str, Floats]
    ) -> dict[Any, tuple[Floats, Floats]]:
        """Return what hyperopt's `ap_split_trials` gives, of each knob: values of the best observations and of others.

        hyperopt sorts all observations again for each knob, and goes through them in Python.
        """
        best = np.zeros(len(ranks), dtype=bool)
        best[np.argsort(ranks)[: min(math.ceil(GAMMA * math.sqrt(len(ranks))), MOST_GOOD)]] = True
        found = {}
        for node in self.splits:
            name = node.pos_args[0].pos_args[1].obj
            among = best[numbers[name]]
            found[node] = known[name][among], known[name][~among]
        return found

    def _numbers(self, space: Space, config: Config) -> bytes:
        """Return hyperopt's numbers of a configuration in the order of `names`, no number where a knob is inactive."""
        kept = self._known.get(id(config))
        if kept is None or kept[0] is not config:
            row = [_raw(name, space, config[name]) if name in config else math.nan for name in self.names]
            kept = self._known[id(config)] = config, np.array(row, dtype=np.float64).tobytes()
        return kept[1]


def price_of(candidates: Floats, line: tuple[list[float], list[float]]) -> Floats:
    """Return what candidates of a knob cost, given hyperopt's numbers of some values, ascending, and their prices."""
    return np.interp(candidates, *line)


pyll.scope.define(price_of)


def _line(name: str, space: Space, prices: Sequence[tuple[Any, float]]) -> tuple[list[float], list[float]]:
    """Return hyperopt's numbers of a knob's values and what they cost; all are for nothing where no price is known."""
    return [_raw(name, space, value) for value, _ in prices] or [0.0], [price for _, price in prices] or [0.0]


def _expression(name: str, space: Space) -> Any:
    """Return hyperopt's node of a knob; whole numbers are a continuous position, rounded in `_value`."""
    match bare(space.knobs[name].domain):
        case Choice(options):
            return hp.choice(name, list(range(len(options))))
        case Uniform(low, high):
            return hp.uniform(name, low, high)
        case LogUniform(low, high):
            return hp.loguniform(name, math.log(low), math.log(high))
        case Integer(low, high, _, True):
            return hp.loguniform(name, math.log(low), math.log(high))
        case Integer(low, high, step):
            return hp.uniform(name, -0.5, (high - low) // step + 0.5)


def _value(name: str, space: Space, raw: float) -> Any:
    """Bring hyperopt's number back to a value of the domain."""
    match bare(space.knobs[name].domain):
        case Choice(options):
            return options[int(raw)]
        case Uniform(low, high) | LogUniform(low, high):
            return min(max(float(raw), low), high)
        case Integer(low, high, step, True):
            return low + step * min(max(round((float(raw) - low) / step), 0), (high - low) // step)
        case Integer(low, high, step):
            return low + step * min(max(round(float(raw)), 0), (high - low) // step)


def _raw(name: str, space: Space, value: Any) -> float:
    """Return hyperopt's number for a value: the inverse of `_value`."""
    match bare(space.knobs[name].domain):
        case Choice(options):
            return float(options.index(value))
        case Integer(low, _, step, False):
            return float((value - low) / step)
    return float(value)

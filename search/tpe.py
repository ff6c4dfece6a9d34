"""TPE proposals: observations go to hyperopt as ranks, and a configuration comes back.

hyperopt's state is built anew for every proposal (2.5 ms at 120 observations), so a proposal is a pure function.
"""

import math
from collections.abc import Mapping
from typing import Any

from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, hp, tpe
from hyperopt.base import Domain as HyperoptDomain

from search.question import Question
from spaces import Space
from spaces.domains import Choice, Integer, LogUniform, Uniform, active, bare


def suggest(question: Question) -> dict[str, Any]:
    """Return a configuration by TPE (Bergstra et al., 2011).

    Only the rank of observations counts. A knob that is inactive in a configuration teaches nothing about itself.
    """
    space, observations = question.space, question.observations
    trials = Trials()
    trials.insert_trial_docs(
        [_document(number, space, seen.config, seen.rank) for number, seen in enumerate(observations)]
    )
    trials.refresh()
    domain = HyperoptDomain(lambda _: 0.0, {name: _expression(name, space) for name in space.knobs})
    new = tpe.suggest([len(observations)], domain, trials, question.seed_of_draw(), n_startup_jobs=0, verbose=False)
    raw = {name: values[0] for name, values in new[0]["misc"]["vals"].items()}
    config: dict[str, Any] = {}
    for name, knob in space.knobs.items():
        if active(knob.domain, config):
            config[name] = _value(name, space, raw[name])
    return config


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


def _document(number: int, space: Space, config: Mapping[str, Any], rank: int) -> dict[str, Any]:
    known = {name: [_raw(name, space, config[name])] if name in config else [] for name in space.knobs}
    return {
        "tid": number,
        "spec": None,
        "result": {"status": STATUS_OK, "loss": float(rank)},
        "misc": {
            "tid": number,
            "cmd": ("domain_attachment", "FMinIter_Domain"),
            "workdir": None,
            "idxs": {name: [number] if values else [] for name, values in known.items()},
            "vals": known,
        },
        "state": JOB_STATE_DONE,
        "owner": None,
        "book_time": None,
        "refresh_time": None,
        "exp_key": None,
        "version": 0,
    }

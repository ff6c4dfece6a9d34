"""TPE's proposals are hyperopt's own."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hyperopt import JOB_STATE_DONE, STATUS_OK, Trials, tpe
from hyperopt.base import Domain

import spaces
from search.question import Observation, Question
from search.tpe import _expression, _raw, _value, suggest
from spaces import Space
from spaces.domains import active


def by_documents(question: Question) -> dict[str, Any]:
    """Return what `hyperopt.tpe.suggest` proposes, given every observation as a document."""
    space, trials = question.space, Trials()
    for number, seen in enumerate(question.observations):
        values = {name: [_raw(name, space, seen.config[name])] if name in seen.config else [] for name in space.knobs}
        numbers = {name: [number] if value else [] for name, value in values.items()}
        misc = {"tid": number, "cmd": None, "workdir": None, "idxs": numbers, "vals": values}
        document = {"tid": number, "spec": None, "misc": misc, "state": JOB_STATE_DONE, "owner": None, "version": 0}
        document |= {"result": {"status": STATUS_OK, "loss": float(seen.rank)}}
        trials.insert_trial_doc(document | {"book_time": None, "refresh_time": None, "exp_key": None})
    trials.refresh()
    domain = Domain(lambda _: 0.0, {name: _expression(name, space) for name in space.knobs})
    number = len(question.observations)
    new = tpe.suggest([number], domain, trials, question.seed_of_draw(), n_startup_jobs=0, verbose=False)
    raw = {name: values[0] for name, values in new[0]["misc"]["vals"].items()}
    config: dict[str, Any] = {}
    for name, knob in space.knobs.items():
        if active(knob.domain, config):
            config[name] = _value(name, space, raw[name])
    return config


def observed(space: Space, count: int, rng: random.Random) -> list[Observation]:
    """Return observations of which a quarter still runs and ranks as the worst."""
    ended = [number for number in range(count) if rng.random() < 0.75]
    rng.shuffle(ended)
    rank = {number: position for position, number in enumerate(ended)}
    return [Observation(space.draw(rng), rank.get(number, len(ended))) for number in range(count)]


@pytest.mark.parametrize("architecture", ["cnn", "vgg11", "mobilenet_v2"])
def test_arrays_give_the_configurations_that_documents_give(architecture: str) -> None:
    space, rng = spaces.load(architecture), random.Random(1)
    for count in (0, 1, 9, 40, 300):
        question = Question(space, count, 0, 0, count, observed(space, count, rng))
        assert repr(suggest(question)) == repr(by_documents(question)), count


def test_what_is_kept_of_a_space_is_not_taken_for_another() -> None:
    space, rng = spaces.load("cnn"), random.Random(2)
    narrow = spaces.narrowed(space, {"learning_rate": {"low": 1e-4, "high": 2e-4, "log": True}}, "test")
    for each in (space, narrow, space):
        question = Question(each, 12, 0, 0, 0, observed(each, 12, rng))
        assert suggest(question) == by_documents(question)
        assert suggest(question) == suggest(question)


def test_a_price_that_all_values_have_changes_nothing_and_a_high_one_is_not_paid() -> None:
    space, rng = spaces.load("cnn"), random.Random(3)
    seen = observed(space, 40, rng)
    for draw in range(20):
        asked = Question(space, 40, 0, draw, 0, seen)
        equal = {"filters": [(16, 2.0), (32, 2.0), (64, 2.0)], "depth": [(2, -1.0), (4, -1.0), (6, -1.0)]}
        assert suggest(replace(asked, prices=equal)) == suggest(asked)
        rising = {"filters": [(16, 9.0), (32, 0.0), (64, 9.0)], "depth": [(2, 0.0), (4, 40.0)]}
        dear = suggest(replace(asked, prices=rising))
        assert (dear["filters"], dear["depth"]) == (32, 2)
        same = set(space.knobs) - {"filters", "depth"}
        assert {name: dear.get(name) for name in same} == {name: suggest(asked).get(name) for name in same}

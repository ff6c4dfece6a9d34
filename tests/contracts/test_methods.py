"""What every search method must do."""

import math
import random

import pytest

import spaces
from search.methods import METHODS, STARTUP, grid_axes
from search.question import Observation, Question
from spaces import Space

ARCHITECTURES = spaces.names()


def observed(space: Space, count: int) -> list[Observation]:
    rng = random.Random(7)
    configs = [space.draw(rng) for _ in range(count)]
    by_rate = sorted(range(count), key=lambda number: abs(math.log10(configs[number]["learning_rate"]) + 2))
    return [Observation(config, by_rate.index(number)) for number, config in enumerate(configs)]


def question(space: Space, index: int, draw: int = 0, seed: int = 0, count: int = 30) -> Question:
    return Question(space, index, 0, draw, seed, observed(space, count))


@pytest.fixture(params=sorted(METHODS))
def propose(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    return METHODS[request.param]().propose


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_proposals_lie_inside_the_space(propose, architecture: str) -> None:  # type: ignore[no-untyped-def]
    space = spaces.load(architecture)
    for index in range(1, 11):
        for count in (0, 40):
            config = propose(question(space, index, count=count))
            assert space.mistakes(config) == []
            assert list(config) == [name for name in space.knobs if name in config]


def test_the_same_question_has_the_same_answer(propose) -> None:  # type: ignore[no-untyped-def]
    space = spaces.load("cnn")
    assert propose(question(space, 5)) == propose(question(space, 5))


def test_another_seed_index_or_draw_gives_another_proposal(propose) -> None:  # type: ignore[no-untyped-def]
    space = spaces.load("cnn")
    first = propose(question(space, 5))
    assert propose(question(space, 5, seed=1)) != first
    assert propose(question(space, 6)) != first
    assert propose(question(space, 5, draw=1)) != first


def test_random_search_does_not_look_at_what_was_observed() -> None:
    space = spaces.load("cnn")
    for name in ("random", "asha"):
        propose = METHODS[name]().propose
        assert propose(question(space, 3, count=0)) == propose(question(space, 3, count=40))


def test_only_asha_methods_stop_trials_early() -> None:
    assert {name for name, method in METHODS.items() if method().stops_early} == {"asha", "tpe_asha"}


def small_space() -> Space:
    space = spaces.load("cnn")
    fixed = {name: value for name, value in space.baseline.items() if name not in ("optimizer", "depth")}
    wanted = fixed | {"optimizer": ["adam", "sgd"], "momentum": [0.5, 0.9], "depth": [1, 2]}
    return spaces.narrowed(space, wanted, "test")


def test_a_grid_visits_every_point_exactly_once_and_then_has_nothing_left() -> None:
    space, propose = small_space(), METHODS["grid"]().propose
    points = [propose(Question(space, index, 0, 0, seed=3)) for index in range(1, 7)]
    assert propose(Question(space, 7, 0, 0, seed=3)) is None
    found = {(point["optimizer"], point.get("momentum"), point["depth"]) for point in points if point}
    assert found == {
        (optimizer, momentum, depth)
        for optimizer, momentum in (("adam", None), ("sgd", 0.5), ("sgd", 0.9))
        for depth in (1, 2)
    }


def test_a_grid_goes_on_behind_the_points_that_could_not_be_built() -> None:
    space, propose = small_space(), METHODS["grid"]().propose
    in_order = [propose(Question(space, index, 0, 0, seed=3)) for index in range(1, 7)]
    assert propose(Question(space, 1, 0, 2, seed=3)) == in_order[2]  # two refusals within the first trial
    assert propose(Question(space, 2, 2, 0, seed=3)) == in_order[3]


def test_a_knob_and_what_hangs_on_it_share_an_axis() -> None:
    assert math.prod(len(axis) for axis in grid_axes(small_space())) == 6


def test_tpe_draws_at_random_until_it_knows_enough_and_then_learns() -> None:
    space = spaces.load("cnn")
    tpe, draw = METHODS["tpe"]().propose, METHODS["random"]().propose
    assert tpe(question(space, 4, count=STARTUP - 1)) == draw(question(space, 4))
    distance = {}
    for name, propose in (("tpe", tpe), ("random", draw)):
        rates = [propose(question(space, index, count=60))["learning_rate"] for index in range(60, 90)]
        distance[name] = sum(abs(math.log10(rate) + 2) for rate in rates) / len(rates)
    assert distance["tpe"] < 0.6 * distance["random"]  # the best observed learning rates lie near 0.01

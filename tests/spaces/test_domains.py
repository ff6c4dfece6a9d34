import json
import random
from collections import Counter

import pytest

from spaces.domains import (
    Choice,
    Integer,
    LogUniform,
    Uniform,
    Unless,
    When,
    active,
    bare,
    contains,
    draw,
    from_json,
    grid,
    nearest,
    text,
    to_json,
)

DOMAINS = [
    Choice(("relu", "tanh")),
    Choice((True, False)),
    Choice((0, 20, "all")),
    Uniform(0.5, 0.99),
    Uniform(-1, 1),
    LogUniform(1e-5, 1e-1),
    Integer(0, 3),
    Integer(32, 100, step=32),
    Integer(1, 1000, log=True),
    Integer(16, 512, step=16, log=True),
    When(Uniform(0.5, 0.99), "optimizer", ("sgd", "rmsprop")),
    Unless(Integer(0, 3), "trainable_layers", (0,)),
]


@pytest.mark.parametrize("domain", DOMAINS, ids=text)
def test_every_draw_grid_value_and_nearest_value_is_inside(domain):
    rng = random.Random(0)
    for value in [draw(domain, rng) for _ in range(200)] + grid(domain, 5):
        assert contains(domain, value)
        assert nearest(domain, value) == value
    for value in (-1e9, 1e9, 0.3, 7, "text", None, True):
        assert contains(domain, nearest(domain, value))


@pytest.mark.parametrize("domain", DOMAINS, ids=text)
def test_json_round_trip(domain):
    again = from_json(json.loads(json.dumps(to_json(domain))))
    assert again == domain
    assert type(again) is type(domain)


@pytest.mark.parametrize("domain", DOMAINS, ids=text)
def test_a_seed_decides_the_draws(domain):
    def draws(seed):
        rng = random.Random(seed)
        return [draw(domain, rng) for _ in range(50)]

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)


def test_draws_spread_as_the_domain_says():
    rng = random.Random(0)
    assert Counter(draw(Integer(0, 3), rng) for _ in range(4000)).most_common()[-1][1] > 900
    small = sum(draw(LogUniform(1e-4, 1e-2), rng) < 1e-3 for _ in range(4000))
    assert 1850 < small < 2150
    logs = Counter(draw(Integer(1, 4, log=True), rng) for _ in range(4000))
    assert logs[1] > logs[2] > logs[3] > logs[4] > 400


def test_true_is_not_one():
    assert not contains(Choice((True, False)), 1)
    assert not contains(Choice((0, 1)), True)
    assert not contains(Uniform(0, 1), True)
    assert not contains(Integer(0, 1), True)
    assert not contains(Integer(0, 4), 2.0)
    assert not contains(Uniform(0, 1), float("nan"))
    assert contains(Uniform(0, 1), 1)


def test_nearest_values():
    assert nearest(Uniform(0, 1), 3) == 1
    assert nearest(Integer(32, 100, step=32), 300) == 96
    assert nearest(Integer(32, 100, step=32), 50) == 64
    assert nearest(Choice((16, 64)), 30) == 16
    assert nearest(Choice(("adam", "sgd")), "adamw") == "adam"
    assert nearest(Choice(("all", 10, 20)), 100) == 20
    assert nearest(Choice((10, 20)), "all") == 10


def test_grids():
    assert grid(Uniform(0, 1)) == [0, 0.5, 1]
    assert grid(LogUniform(1e-5, 1e-1)) == [1e-5, 1e-3, 1e-1]
    assert grid(Integer(32, 100, step=32), 9) == [32, 64, 96]
    assert grid(Integer(1, 100, log=True)) == [1, 10, 100]
    assert grid(Choice(("b", "a"))) == ["b", "a"]
    assert grid(When(Uniform(0, 1), "optimizer", ("sgd",)), 2) == [0, 1]
    with pytest.raises(ValueError, match="2 points or more to hold both ends of a range, not 1"):
        grid(Uniform(0, 1), 1)


def test_conditions():
    when = When(Uniform(0, 1), "optimizer", ("sgd",))
    assert active(when, {"optimizer": "sgd"})
    assert not active(when, {"optimizer": "adam"})
    assert not active(when, {})
    unless = Unless(Uniform(0, 1), "layers", (0,))
    assert active(unless, {"layers": 1})
    assert active(unless, {"layers": "all"})
    assert active(unless, {"layers": False})
    assert not active(unless, {"layers": 0})
    assert not active(unless, {})
    assert active(Uniform(0, 1), {})
    assert bare(unless) == Uniform(0, 1)


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (LogUniform(1e-5, 0.01), "1e-05 .. 0.01 (log)"),
        (Integer(32, 96, step=16), "32 .. 96 (step 16)"),
        (Integer(1, 9, log=True), "1 .. 9 (log)"),
        (Integer(16, 512, step=16, log=True), "16 .. 512 (step 16, log)"),
        (Choice((True, 0.5, "all")), "true, 0.5, all"),
        (When(Uniform(0, 1), "optimizer", ("sgd", "rmsprop")), "0 .. 1, if optimizer is sgd or rmsprop"),
        (Unless(Uniform(0, 1), "layers", (0,)), "0 .. 1, unless layers is 0"),
    ],
)
def test_text(domain, expected):
    assert text(domain) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(1, 0.5), "low 1 is not below high 0.5"),
        (lambda: Uniform(2, 2), "low 2 is not below high 2"),
        (lambda: Uniform(float("nan"), 2), "low nan is not below high 2"),
        (lambda: Uniform(0, float("inf")), "low 0 is not below high inf"),
        (lambda: LogUniform(1e-1, 1e-3), "low 0.1 is not below high 0.001"),
        (lambda: LogUniform(0, 1), "a log range needs low above 0: low is 0, high is 1"),
        (lambda: Integer(5, 3), "low 5 is not below high 3"),
        (lambda: Integer(0, 3, log=True), "a log range needs low above 0: low is 0, high is 3"),
        (lambda: Integer(0, 3, step=4), "a step of 4 does not fit between low 0 and high 3: 1 .. 3 do"),
        (lambda: Integer(0, 3, step=0), "a step of 0 does not fit between low 0 and high 3: 1 .. 3 do"),
        (lambda: Choice(()), "a choice needs at least one option"),
        (lambda: Choice((1, 2, 1)), "the option 1 is there twice"),
    ],
)
def test_impossible_domains_say_both_numbers(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make()
    assert str(error.value) == message

"""Importance on functions whose shares are known, and ranges that are too narrow."""

import random
from typing import Any

import numpy as np
import pytest

from analysis.edges import Edge, at_the_edge
from analysis.importance import UNEVEN, Importance, KnobImportance, importance
from spaces.domains import Choice, Integer, LogUniform, Uniform, When
from spaces.knobs import Among, Between, Knob
from spaces.space import Space

KNOBS = {
    "learning_rate": Knob(LogUniform(1e-4, 1e-1), allowed=Between(1e-8, 10)),
    "optimizer": Knob(Choice(("sgd", "adam", "rmsprop"))),
    "momentum": Knob(When(Uniform(0, 1), "optimizer", ("sgd",)), allowed=Between(0, 1)),
    "depth": Knob(Integer(1, 8), allowed=Between(1, 20)),
    "idle": Knob(Uniform(0, 1)),
    "batch_size": Knob(Choice((16, 32, 64)), allowed=Among((16, 32, 64, 128))),
    "fixed": Knob(Choice((3,))),
}
BASELINE = {"learning_rate": 1e-3, "optimizer": "adam", "depth": 2, "idle": 0.5, "batch_size": 16, "fixed": 3}
SPACE = Space("cnn", KNOBS, BASELINE)
RATES = {"sgd": -(1.5**0.5), "adam": 1.5**0.5, "rmsprop": 0.0}
Rows = list[tuple[dict[str, Any], float]]


def rows(n: int, seed: int, noise: float = 0.02) -> Rows:
    """Return trials whose scores are 60 % learning rate, 30 % optimizer and 10 % depth, with noise of its own."""
    rng, draws = np.random.default_rng(seed), random.Random(seed)
    found = []
    for _ in range(n):
        config = SPACE.draw(draws)
        rate = (np.log10(config["learning_rate"]) + 2.5) / 3 * 12**0.5
        depth = (config["depth"] - 4.5) / 5.25**0.5
        score = 0.6**0.5 * rate + 0.3**0.5 * RATES[config["optimizer"]] + 0.1**0.5 * depth
        found.append((config, 0.6 + 0.1 * float(score) + float(rng.normal(0, noise))))
    return found


def shares(found: Importance) -> dict[str, float]:
    return {each.knob: each.share for each in found.knobs}


def test_shares_of_an_additive_function() -> None:
    found = [importance(SPACE, rows(150, seed), 3, sampled_evenly=True, seed=seed + 50, splits=10) for seed in range(4)]
    mean = {knob: float(np.mean([shares(each)[knob] for each in found])) for knob in shares(found[0])}
    assert mean["learning_rate"] == pytest.approx(0.6, abs=0.12)
    assert mean["optimizer"] == pytest.approx(0.3, abs=0.08)
    assert mean["depth"] == pytest.approx(0.1, abs=0.06)
    assert all(abs(mean[knob]) < 0.02 for knob in ("idle", "batch_size", "momentum"))
    assert "fixed" not in mean
    assert all(each.explained is not None and each.explained > 0.7 for each in found)


def test_a_knob_that_does_nothing_has_an_interval_about_0_and_one_that_does_has_not() -> None:
    found = importance(SPACE, rows(60, 7), 3, sampled_evenly=True, splits=20)
    by_name = {each.knob: each for each in found.knobs}
    for knob in ("idle", "batch_size", "momentum"):
        assert by_name[knob].low <= 0.005
        assert by_name[knob].high < 0.1
    for knob in ("learning_rate", "optimizer"):
        assert by_name[knob].low > 0.03
    assert found.knobs[0].knob == "learning_rate"
    assert all(each.low <= each.share <= each.high <= 1 for each in found.knobs)


def test_a_knob_that_is_often_not_active_counts_where_it_is() -> None:
    draws = random.Random(3)
    made = []
    for _ in range(150):
        config = SPACE.draw(draws)
        made.append((config, config.get("momentum", 0.5)))
    found = importance(SPACE, made, 3, sampled_evenly=True, splits=10)
    assert found.knobs[0].knob == "momentum"
    assert found.knobs[0].share > 0.7


def test_the_seed_decides_and_nothing_else() -> None:
    made = rows(40, 1)
    one, other = (importance(SPACE, made, 3, sampled_evenly=True, seed=4, splits=3) for _ in range(2))
    assert one == other


def test_too_few_trials_are_said_and_scores_that_are_no_numbers_left_out() -> None:
    made = rows(22, 0)
    broken: Rows = [(config, float("nan")) for config, _ in made[:3]] + made[3:]
    found = importance(SPACE, broken, 3, sampled_evenly=True)
    assert (found.n_trials, found.knobs, found.explained) == (19, (), None)
    assert found.sentence == "cnn, 19 trials at epoch 3: not enough trials: 20 are needed"


def test_scores_that_do_not_differ() -> None:
    made = [(config, 0.5) for config, _ in rows(25, 0)]
    assert importance(SPACE, made, 3, sampled_evenly=True).reason == "no scores differ"


def test_noise_is_not_explained() -> None:
    rng = np.random.default_rng(0)
    made = [(config, float(rng.normal())) for config, _ in rows(40, 0)]
    found = importance(SPACE, made, 3, sampled_evenly=True)
    assert found.knobs == ()
    assert found.explained is not None
    assert found.explained < 0.1
    assert found.sentence == (
        "cnn, 40 trials at epoch 3: not enough trials: the configurations explain 0.0 % of what trials not yet seen "
        "scored, 10.0 % are needed"
    )


def test_the_sentence_names_the_epoch_and_uneven_sampling() -> None:
    knobs = (KnobImportance("learning_rate", 0.62, 0.45, 0.75), KnobImportance("idle", 0.01, -0.02, 0.03))
    found = Importance("cnn", 9, 46, knobs, 0.6, None, UNEVEN)
    assert found.sentence == (
        "cnn, 46 trials at epoch 9, of stopped ones too: learning_rate 62 % [45, 75], idle 1 % [-2, 3]; TPE does not "
        "sample evenly: where it rarely looked these shares are guesses, and a knob that it settled early seems less "
        "important than it was"
    )
    assert Importance("cnn", 9, 46, knobs, 0.6, None, None).sentence.endswith("idle 1 % [-2, 3]")


def best_at(**knobs: Any) -> Rows:
    """Return 40 trials of which the best 5 have these values."""
    made = rows(40, 2, noise=0.0)
    order = sorted(made, key=lambda row: -row[1])
    return [
        ({**config, **knobs}, score) if number < 5 else (config, score) for number, (config, score) in enumerate(order)
    ]


def test_the_best_at_the_edge_of_a_log_range() -> None:
    middle = {"depth": 4, "batch_size": 32, "idle": 0.5}
    made = best_at(learning_rate=0.08, **middle)
    (found,) = at_the_edge(SPACE, made)
    assert at_the_edge(SPACE, [*made, (made[-1][0], float("nan"))]) == (found,)
    assert (found.knob, found.at_high, found.limit, found.best) == ("learning_rate", True, 0.1, 0.08)
    assert (found.n_edge, found.n_best) == (5, 5)
    assert found.p_value < 1e-5
    assert found.sentence == (
        "learning_rate: the best value, 0.08, is at the edge of its range: 5 of the best 5 trials are next to the "
        "highest value allowed, 0.1: widen it"
    )
    assert at_the_edge(SPACE, best_at(learning_rate=0.05, **middle)) == ()  # 10 % from the end, on the log scale


def test_the_edge_of_whole_numbers_and_choices_and_where_they_may_not_be_widened() -> None:
    middle = {"learning_rate": 3e-3, "idle": 0.5}
    found = at_the_edge(SPACE, best_at(depth=8, batch_size=64, **middle))
    assert [(each.knob, each.limit) for each in found] == [("depth", 8), ("batch_size", 64)]
    assert at_the_edge(SPACE, best_at(depth=1, batch_size=16, **middle)) == ()  # nothing is allowed below


def test_losses_and_too_few_trials() -> None:
    turned = [(config, -score) for config, score in best_at(learning_rate=0.08, depth=4, batch_size=32, idle=0.5)]
    assert [each.knob for each in at_the_edge(SPACE, turned, higher_is_better=False)] == ["learning_rate"]
    assert at_the_edge(SPACE, turned[:4], higher_is_better=False) == ()


def test_chance_puts_few_knobs_at_an_edge() -> None:
    rng = np.random.default_rng(0)
    found: list[Edge] = []
    for seed in range(30):
        found += at_the_edge(SPACE, [(config, float(rng.normal())) for config, _ in rows(40, seed)])
    assert len(found) <= 5  # of 30 searches with 5 numeric knobs


def test_a_grid_has_a_third_of_its_trials_at_each_end_anyway() -> None:
    middle = {"depth": 4, "batch_size": 32, "idle": 0.5}
    made = best_at(learning_rate=0.1, **middle)
    for config, _ in made[3:5]:
        config["learning_rate"] = 0.01
    assert [each.knob for each in at_the_edge(SPACE, made)] == ["learning_rate"]  # 3 of the best 5
    assert at_the_edge(SPACE, made, on_grid=True) == ()
    for config, _ in made[3:5]:
        config["learning_rate"] = 0.1
    (found,) = at_the_edge(SPACE, made, on_grid=True)
    assert found.p_value == pytest.approx(1 / 3**5)

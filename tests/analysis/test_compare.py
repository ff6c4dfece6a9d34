"""Comparisons against known answers: false alarms, power, corrections, and every sentence."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from threadpoolctl import threadpool_limits

from analysis.compare import Comparison, Correct, compare, holm, mcnemar, standard_error
from analysis.seeds import SeedSpread, best_group, seed_spread

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from alarms import IMAGES, SETTINGS, SIMULATIONS, pairs, trained


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


@pytest.mark.parametrize(("n_first", "n_second", "sigma"), SETTINGS)
def test_false_alarms_are_not_above_5_percent_and_stated_power_is_true(
    n_first: int, n_second: int, sigma: float
) -> None:
    equal = pairs(n_first, n_second, sigma, 0.0, seed=n_first)
    assert sum(each.found for each in equal) <= binom.ppf(0.99, SIMULATIONS, 0.05)
    assert np.mean([(each.low or 0) <= 0 <= (each.high or 0) for each in equal]) >= 0.935
    planted = float(np.mean([each.detectable for each in equal]))
    differ = pairs(n_first, n_second, sigma, planted, seed=n_second)
    assert 0.75 <= np.mean([each.found for each in differ]) <= 0.88
    assert np.mean([each.difference for each in differ]) == pytest.approx(planted, rel=0.05)
    assert np.mean([(each.low or 0) <= planted <= (each.high or 0) for each in differ]) >= 0.935


def test_the_standard_error_is_that_of_repeated_experiments() -> None:
    rng = np.random.default_rng(0)
    hardness = rng.standard_normal((SIMULATIONS, 1, IMAGES), dtype=np.float32)
    first, second = (trained(0.8, 5, sigma, hardness, rng) for sigma in (0.01, 0.03))
    true = (first.mean(axis=(1, 2)) - second.mean(axis=(1, 2))).std()
    squares = [standard_error(one, other)[0] ** 2 for one, other in zip(first, second, strict=True)]
    assert np.sqrt(np.mean(squares)) == pytest.approx(true, rel=0.1)


def right(shares: list[float], n_images: int = 1000) -> Correct:
    """Return models with exactly these accuracies, all of them wrong about the same images as far as possible."""
    return np.arange(n_images) < np.round(np.array(shares)[:, None] * n_images)


def test_the_sentence_of_a_difference_names_the_better_one() -> None:
    correct = {"tuned": right([0.83, 0.84, 0.85]), "baseline": right([0.74, 0.75, 0.76])}
    (found,) = compare([("baseline", "tuned")], correct)
    assert found.difference == pytest.approx(-0.09)
    assert found.found
    assert found.low is not None
    assert found.high is not None
    assert found.low < -0.09 < found.high < 0
    assert found.sentence == (
        f"tuned is better than baseline by 9.0 points [{-100 * found.high:.1f}, {-100 * found.low:.1f}], "
        "p < 0.001, 3 seeds each, 1,000 test images"
    )


def test_no_evidence_comes_with_what_could_have_been_found() -> None:
    comparison = Comparison(
        first="tuned",
        second="baseline",
        difference=0.004,
        n_seeds=(3, 3),
        n_images=1000,
        low=-0.012,
        high=0.02,
        p_value=0.5,
        p_holm=1.0,
        standard_error=0.006,
        freedom=4.0,
        detectable=0.024,
        n_comparisons=3,
    )
    assert comparison.sentence == (
        "no evidence that tuned and baseline differ: +0.4 points [-1.2, +2.0], p = 1.00 after Holm over 3 "
        "comparisons; with 3 seeds each and 1,000 test images a difference of 2.4 points would have been found in "
        "80 % of cases"
    )
    alone = replace(comparison, n_comparisons=1, split="validation")
    assert "p = 1.00; with 3 seeds each and 1,000 validation images" in alone.sentence
    hopeless = replace(alone, n_seeds=(2, 2), detectable=1.0)
    assert hopeless.sentence.endswith(
        "no difference, however large, would have been found in 80 % of cases: raise --seeds"
    )


def test_one_seed_each_claims_nothing() -> None:
    (found,) = compare([("a", "b")], {"a": right([0.9]), "b": right([0.5])})
    assert not found.found
    assert (found.p_value, found.low, found.detectable) == (None, None, None)
    assert found.sentence == (
        "a against b: +40.0 points on 1,000 test images; with 1 seed each nothing is known of the luck of seeds, so "
        "no more can be said: raise --seeds"
    )


def test_one_seed_against_several_is_taken_to_spread_like_them() -> None:
    (found,) = compare([("a", "b")], {"a": right([0.9]), "b": right([0.70, 0.72, 0.74])})
    sigma = 0.02
    assert found.standard_error is not None
    assert found.standard_error >= sigma * np.sqrt(1 + 1 / 3)
    assert found.n_seeds == (1, 3)
    assert found.p_value is not None


def test_comparisons_are_corrected_together_and_their_number_makes_them_stricter() -> None:
    rng = np.random.default_rng(1)
    hardness = rng.standard_normal((1, 1, 1000), dtype=np.float32)
    correct = {
        name: trained(accuracy, 3, 0.005, hardness, rng, n=1)[0]
        for name, accuracy in (("a", 0.85), ("b", 0.8), ("c", 0.8), ("d", 0.6))
    }
    three = compare([("a", "b"), ("a", "c"), ("a", "d")], correct)
    alone = compare([("a", "b")], correct)[0]
    assert [each.p_holm for each in three] == holm([each.p_value or 0 for each in three])
    assert alone.p_holm == alone.p_value
    assert three[0].detectable is not None
    assert alone.detectable is not None
    assert three[0].detectable > alone.detectable
    assert "after Holm over 3 comparisons" in three[2].sentence
    assert three == compare([("a", "b"), ("a", "c"), ("a", "d")], correct)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_identical_models_do_not_differ() -> None:
    same = right([0.8, 0.8])
    (found,) = compare([("a", "b")], {"a": same, "b": same})
    assert (found.difference, found.p_value, found.found) == (0.0, 1.0, False)


def test_mcnemar_by_hand() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 5)
    second = np.array([False] * 10 + [True] * 2 + [True] * 5)
    assert mcnemar(first, second) == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert mcnemar(first, first) == 1.0
    with pytest.raises(ValueError, match=r"two models on the same images are needed; found \(17,\) and \(5,\)"):
        mcnemar(first, second[:5])


@pytest.mark.parametrize("other", [np.ones((3, 9), bool), np.ones((0, 10), bool), np.ones(10, bool)])
def test_arrays_that_do_not_fit_together(other: Correct) -> None:
    with pytest.raises(ValueError, match="the same 2 images or more"):
        compare([("a", "b")], {"a": np.ones((3, 10), bool), "b": other})


def test_no_pair() -> None:
    with pytest.raises(ValueError, match="nothing to compare"):
        compare([], {})


def test_the_spread_between_seeds_is_pooled() -> None:
    spread = seed_spread({"a": [0.80, 0.82], "b": [0.70, 0.71, 0.72], "c": [0.5]})
    assert spread.sigma == pytest.approx(np.sqrt((0.0002 + 0.0002) / 3))
    assert spread.freedom == 3
    assert spread.sentence == (
        "the seed alone changes the accuracy with a standard deviation of 1.2 points (3 degrees of freedom)"
    )
    unknown = seed_spread({"a": [0.8], "b": [0.7]})
    assert unknown == SeedSpread(None, 0)
    assert unknown.sentence.endswith("no configuration was trained twice")


def test_the_group_of_the_best() -> None:
    accuracies = {"far": [0.70, 0.72], "near": [0.79, 0.81], "best": [0.80, 0.82], "once": [0.78]}
    sigma = 0.01 * np.sqrt(2)  # two standard errors: 2.8 points for two seeds each, 3.5 for one
    assert seed_spread(accuracies).sigma == pytest.approx(sigma)
    assert best_group(accuracies) == ("best", "near", "once")
    assert best_group({"a": [0.5], "b": [0.9]}) == ("b", "a")
    assert best_group({}) == ()

"""The winner's corrected score against planted true accuracies."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from analysis.selection import BLOCK, Selection, corrected_winner

IMAGES, SIMULATIONS = 500, 120


def search(
    accuracies: NDArray[np.float64], rng: np.random.Generator, n_images: int = IMAGES
) -> list[NDArray[np.bool_]]:
    """Return trials whose epochs have these true accuracies, (trials, epochs); hard images are hard for all."""
    hard = rng.standard_normal(n_images)
    own = rng.standard_normal((*accuracies.shape, n_images))
    return list(norm.ppf(accuracies)[:, :, None] * 2**0.5 + own > hard)


def errors(accuracies: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the errors of the winner's own score and of the corrected one, and how often the interval was right."""
    rng = np.random.default_rng(5)
    plain, corrected, inside = [], [], 0
    for number in range(SIMULATIONS):
        found = corrected_winner(search(accuracies, rng), seed=number, draws=200)
        true = float(accuracies[found.trial, found.epoch - 1])
        plain.append(found.accuracy - true)
        corrected.append(found.corrected - true)
        inside += found.low <= true <= found.high
    return np.array(plain), np.array(corrected), inside / SIMULATIONS


SEARCHES = {
    "all alike": np.full((20, 5), 0.8),
    "nearly alike": np.random.default_rng(1).normal(0.8, 0.03, (20, 5)),
    "one ahead by less than the luck of the pick": np.where(np.arange(100).reshape(20, 5) == 17, 0.84, 0.8),
    "one clear winner": np.vstack([np.full((1, 5), 0.93), np.full((19, 5), 0.8)]),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_the_corrected_score_is_unbiased_within_its_error(name: str) -> None:
    plain, corrected, covered = errors(SEARCHES[name])
    one_score = float(np.sqrt(0.8 * 0.2 / IMAGES))
    assert abs(corrected.mean()) < 0.3 * one_score
    if name != "one clear winner":
        assert plain.mean() > 2 * abs(corrected.mean())  # what there was to correct
    assert corrected.std() < 1.3 * one_score
    assert covered >= 0.92


def test_the_winner_is_found_among_trials_of_different_lengths() -> None:
    rows = np.zeros((4, 10), dtype=bool)
    winner = rows.copy()
    winner[2:] = True
    found = corrected_winner([rows, rows[:0], winner, np.ones((1, 10), dtype=bool)])
    assert (found.trial, found.epoch, found.accuracy) == (2, 3, 1.0)
    assert (found.n_trials, found.n_epochs, found.n_images) == (3, 9, 10)
    assert (found.corrected, found.optimism) == (1.0, 0.0)


def test_more_candidates_than_a_block() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((2 * BLOCK + 5, 40)) < 0.5
    rows[BLOCK + 1] = True
    found = corrected_winner(list(rows[:, None, :]))
    assert (found.trial, found.epoch, found.corrected) == (BLOCK + 1, 1, 1.0)


def test_a_single_candidate_was_not_picked() -> None:
    right = np.arange(1000)[None] < 800
    found = corrected_winner([right])
    assert found.corrected == pytest.approx(0.8, abs=0.004)
    assert found == corrected_winner([right])


def test_the_sentence() -> None:
    found = Selection(3, 7, 0.8213, 0.8061, 0.78, 0.8312, 0.0152, 60, 1240, 1000)
    assert found.sentence == (
        "the best of 60 trials and 1,240 epochs is right about 82.1 % of 1,000 validation images; since it was picked "
        "for that, 80.6 % [78.0, 83.1] is to be expected of other images (1.5 points less)"
    )


@pytest.mark.parametrize("correct", [[], [(0, 10)], [(1, 1)], [(1, 5), (1, 6)]])
def test_what_cannot_be_corrected(correct: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="the same 2 images or more; found"):
        corrected_winner([np.ones(shape, dtype=bool) for shape in correct])

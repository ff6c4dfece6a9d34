"""Extrapolated curves: made ones with known ends, and the real ones beside the repository where they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.rescue import Extrapolation, extrapolate

CURVES = Path(__file__).parents[2].parent / "shared" / "curves"


def made(n: int, rng: np.random.Generator, epochs: int = 20) -> NDArray[np.float64]:
    """Return curves (n, epochs) whose errors shrink by a power of the epoch, each at its own pace."""
    epoch = np.arange(1, epochs + 1)
    error = rng.uniform(0.3, 0.6, (n, 1)) * epoch ** -rng.normal(0.3, 0.05, (n, 1))
    return np.asarray(1 - error * np.exp(rng.normal(0, 0.01, (n, epochs))))


def stopped_by(
    curves: NDArray[np.float64], epoch: int, share: float
) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """Return the completed curves and the stopped ones, the best share at an epoch being let on."""
    order = np.argsort(-curves[:, epoch - 1])
    n_completed = int(len(curves) * share)
    completed = {int(row): curves[row].tolist() for row in order[:n_completed]}
    return completed, {int(row): curves[row, :epoch].tolist() for row in order[n_completed:]}


def covered(curves: NDArray[np.float64], epoch: int, share: float) -> tuple[int, int]:
    """Return how many intervals held the end, and of how many."""
    found = extrapolate(*stopped_by(curves, epoch, share)).trials
    ends = [curves[each.trial].max() for each in found]
    return sum(each.low <= end <= each.high for each, end in zip(found, ends, strict=True)), len(found)


def test_the_interval_holds_the_end_of_made_curves_and_is_a_little_wide() -> None:
    rng = np.random.default_rng(0)
    held, of = np.sum([covered(made(40, rng), 5, 1 / 3) for _ in range(100)], axis=0)
    assert of > 1000
    assert 0.88 <= held / of <= 0.98


def test_the_interval_holds_the_end_of_real_curves_in_85_to_95_percent() -> None:
    if not CURVES.is_dir():
        pytest.skip(f"the real learning curves are not at {CURVES}")
    sets = [np.load(path)["curve"] for path in sorted(CURVES.glob("*cifar10.npz"))]
    lemur = np.load(CURVES / "lemur.npz")
    curves, tasks = lemur["curve"], np.array([row["task"].split("_")[1] for row in json.loads(str(lemur["config"]))])
    whole = np.isfinite(curves).all(axis=1)
    sets += [
        curves[whole & (tasks == task)] for task in np.unique(tasks[whole]) if (whole & (tasks == task)).sum() > 60
    ]
    assert len(sets) >= 8
    rng = np.random.default_rng(0)
    shares = []
    for each in sets:
        counts = []
        for _ in range(30):
            drawn = each[rng.choice(len(each), 40, replace=False)].astype(np.float64)
            counts += [covered(drawn, max(1, round(drawn.shape[1] * share)), 1 / 3) for share in (0.1, 1 / 3)]
        held, of = np.sum(counts, axis=0)
        shares.append(held / of)
    assert 0.85 <= np.mean(shares) <= 0.95
    assert min(shares) > 0.7


def test_a_late_starter_could_still_win_and_one_far_behind_is_out_of_reach() -> None:
    rng = np.random.default_rng(2)
    completed = {number: curve.tolist() for number, curve in enumerate(made(12, rng))}
    best = max(max(curve) for curve in completed.values())
    at_5 = sorted(curve[4] for curve in completed.values())
    close, poor = at_5[-1] - 0.005, at_5[0] - 0.3
    found = extrapolate(completed, {20: [0.1] * 4 + [poor], 21: [0.2, 0.3, 0.3, 0.4, close]})
    assert found.out_of_reach == 1
    assert found.reason is None
    (close_one,) = found.trials
    assert (close_one.trial, close_one.epoch, close_one.score) == (21, 5, pytest.approx(close))
    assert close_one.best == pytest.approx(best)
    assert close <= close_one.low < close_one.predicted < close_one.high
    assert close_one.could_win == (close_one.high > best)
    assert close_one.could_win


def test_losses_are_read_the_other_way_round() -> None:
    rng = np.random.default_rng(2)
    curves = made(12, rng)
    stopped = {20: (curves[0, :5] - 0.02).tolist()}
    up = extrapolate(dict(enumerate(curves.tolist())), stopped).trials[0]
    losses = {number: (1 - curve).tolist() for number, curve in enumerate(curves)}
    down = extrapolate(losses, {20: [1 - score for score in stopped[20]]}, higher_is_better=False).trials[0]
    assert (down.low, down.high, down.predicted) == pytest.approx((1 - up.high, 1 - up.low, 1 - up.predicted))
    assert down.could_win == up.could_win


def test_the_most_hopeful_comes_first() -> None:
    rng = np.random.default_rng(3)
    found = extrapolate(*stopped_by(made(60, rng), 5, 0.5))
    highs = [each.high for each in found.trials]
    assert len(highs) > 10
    assert highs == sorted(highs, reverse=True)


def test_a_score_is_the_best_so_far_and_never_falls() -> None:
    completed = {number: [0.5, 0.6 + number / 100] for number in range(5)}
    (found,) = extrapolate(completed, {9: [0.5]}).trials
    assert found.low >= 0.5
    same = extrapolate({number: [0.5, 0.6] for number in range(5)}, {9: [0.5]}).trials[0]
    assert (same.low, same.predicted, same.high, same.could_win) == pytest.approx((0.6, 0.6, 0.6, False))


def test_the_sentence() -> None:
    found = Extrapolation(17, 3, 0.71, 0.8, 0.76, 0.84, 0.82, True)
    assert found.sentence == (
        "trial 17 could still win: 0.7100 after 3 epochs, 0.8000 [0.7600, 0.8400] expected at the end, against 0.8200"
    )
    assert Extrapolation(17, 1, 0.71, 0.8, 0.76, 0.81, 0.82, False).sentence.startswith(
        "trial 17 would not win: 0.7100 after 1 epoch,"
    )


def test_too_little_to_go_by_is_said() -> None:
    few = {number: [0.5, 0.6] for number in range(4)}
    assert extrapolate(few, {9: [0.5]}).reason == "4 trials ran to the end: extrapolation needs 5 or more"
    assert extrapolate({**few, 5: [0.1, 0.2]}, {}).reason == "no trial was stopped"


def test_curves_that_do_not_fit_together() -> None:
    five = {number: [0.5, 0.6] for number in range(5)}
    with pytest.raises(ValueError, match=r"the same number of them; found \[1, 2\]"):
        extrapolate({**five, 7: [0.5]}, {})
    with pytest.raises(ValueError, match="curves need an epoch"):
        extrapolate(five, {9: []})
    with pytest.raises(ValueError, match="more epochs than the 2"):
        extrapolate(five, {9: [0.1] * 3})
    with pytest.raises(ValueError, match="not finite"):
        extrapolate(five, {9: [float("nan")]})

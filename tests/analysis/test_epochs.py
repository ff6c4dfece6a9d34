"""The number of epochs on curves whose answer is known, and every sentence; coverage is in test_epochs_coverage.py."""

from pathlib import Path

import numpy as np
import pytest

from analysis.curves import smoothing_window
from analysis.epochs import choose_epochs


def seeds(curve: list[float], n: int = 5, noise: float = 0.005, seed: int = 0) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    level, jitter = rng.normal(0, 0.05, (n, 1)), rng.normal(0, noise, (n, len(curve)))
    return (np.asarray(curve) + level + jitter).tolist()


def bend(lowest: int, rise: float, last: int = 30, fall: float = 0.1) -> list[float]:
    """Return a curve that falls to 1 at an epoch and changes by `rise` an epoch after it."""
    return [
        1 + (fall * (lowest - epoch) if epoch < lowest else rise * (epoch - lowest)) for epoch in range(1, last + 1)
    ]


def test_the_lowest_mean_wins_and_a_rise_is_called_overfitting() -> None:
    curve = bend(17, 0.1)
    choice = choose_epochs([curve, [loss + 0.2 for loss in curve], [loss - 0.2 for loss in curve]])
    assert (choice.epochs, choice.lowest_at, choice.n_seeds, choice.converged) == (17, 17, 3, True)
    assert (choice.low, choice.high, choice.indicative, choice.rises_after) == (17, 17, True, 17)
    assert choice.overfitting
    assert choice.mean == pytest.approx(curve)
    assert choice.sentence == (
        "17 epochs: validation loss is lowest at 17 [17, 17] (indicative: 3 seeds); after 17 it rises: overfitting"
    )


def test_the_earliest_epoch_within_one_standard_error_is_chosen() -> None:
    # Differences to epoch 4: 0.5 +- 0.58 at epoch 2, less than its standard error; at epoch 3 0.3 +- 0.06, more.
    lowest = np.array([[1.0], [1.1], [0.9]])
    differences = np.array([[3.0, 1.65, 0.4, 0.0, 0.3], [3.0, 0.0, 0.3, 0.0, 0.3], [3.0, -0.15, 0.2, 0.0, 0.3]])
    choice = choose_epochs((lowest + differences).tolist())
    assert (choice.epochs, choice.lowest_at) == (2, 4)
    assert "lowest at 4 [2, 4] (indicative: 3 seeds), and 2 is the earliest within one standard error" in (
        choice.sentence
    )


def test_the_interval_and_the_rule_in_one_sentence() -> None:
    epoch = np.arange(1, 41)
    choice = choose_epochs(seeds((0.6 + 1.6 * np.exp(-epoch / 5) + 0.008 * epoch).tolist(), 5, 0.03, 2))
    assert (choice.low, choice.epochs, choice.lowest_at, choice.high) == (16, 16, 17, 24)
    assert (choice.rises_after, choice.indicative) == (25, False)
    assert choice.sentence == (
        "16 epochs: validation loss is lowest at 17 [16, 24], and 16 is the earliest within one standard error; "
        "after 25 it rises: overfitting"
    )


def test_lowest_at_the_last_epoch_is_not_converged() -> None:
    choice = choose_epochs([[2.0 - 0.1 * epoch for epoch in range(12)]] * 2)
    assert not choice.converged
    assert choice.sentence == (
        "12 epochs: validation loss is lowest at the last epoch, 12 [12, 12] (indicative: 2 seeds): not converged, "
        "raise --epochs"
    )


def test_still_falling_though_the_last_epoch_happens_not_to_be_the_lowest() -> None:
    found = [choose_epochs(seeds(bend(30, 0.0, fall=0.01), 5, 0.03, seed)) for seed in range(40)]
    early = [choice for choice in found if choice.lowest_at < 30]
    assert len(early) > 5
    assert sum(not choice.converged for choice in found) >= 36
    choice = next(choice for choice in early if not choice.converged)
    assert choice.high == 30
    assert choice.sentence.endswith("; it still falls at the end: not converged, raise --epochs")


def test_a_level_end_has_converged_wherever_its_lowest_epoch_happens_to_be() -> None:
    flat = bend(10, 0.0)
    flat[-1] = 0.9995
    choice = choose_epochs([flat] * 4)
    assert (choice.epochs, choice.lowest_at, choice.converged, choice.rises_after) == (30, 30, True, None)
    assert choice.sentence.endswith("lowest at the last epoch, 30 [30, 30]; it is level by then")


def test_a_negligible_rise_is_level() -> None:
    choice = choose_epochs(seeds(bend(10, 0.0004), 4, 0.0001))
    assert (choice.converged, choice.rises_after, choice.overfitting) == (True, None, False)
    assert choice.sentence.endswith("; it stays level after that")
    assert choose_epochs(seeds(bend(10, 0.0008), 4, 0.0001)).overfitting  # 1.6 % in the end


def test_a_rise_that_noise_could_have_made_is_level() -> None:
    found = [choose_epochs(seeds(bend(10, 0.0), 5, 0.05, seed)).rises_after is not None for seed in range(200)]
    assert sum(found) <= 16  # 5 % and two standard errors


def test_a_rise_is_found_and_placed() -> None:
    found = [choose_epochs(seeds(bend(10, 0.02), 5, 0.03, seed)) for seed in range(50)]
    assert all(choice.overfitting for choice in found)
    assert np.median([choice.rises_after for choice in found if choice.rises_after]) in (11, 12)


# AlexNet on 809 photos, three seeds: the loss of the second is far higher in the very last epoch.
OVERFITTED = (
    (2.11, 1.83, 1.65, 1.59, 1.63, 1.52, 1.49, 1.46, 1.56, 1.37, 1.61, 1.54)
    + (1.47, 1.51, 1.65, 1.81, 1.65, 1.63, 1.89, 1.92, 1.98, 2.09, 2.2, 2.11),
    (2.09, 1.84, 1.76, 1.69, 1.57, 1.52, 1.49, 1.53, 1.52, 1.45, 1.51, 1.56)
    + (1.57, 1.78, 1.76, 1.75, 1.86, 1.77, 1.94, 1.92, 2.42, 2.26, 2.4, 3.2),
    (2.17, 1.81, 1.7, 1.6, 1.62, 1.55, 1.58, 1.53, 1.54, 1.52, 1.49, 1.55)
    + (1.48, 1.68, 1.6, 1.55, 1.75, 1.73, 2.01, 1.74, 1.95, 1.85, 2.01, 2.16),
)


def test_runs_that_part_in_the_last_epoch_overfit_all_the_same() -> None:
    choice = choose_epochs(OVERFITTED)
    assert (choice.lowest_at, choice.rises_after, choice.overfitting) == (9, 14, True)


def test_a_rise_that_few_seeds_cannot_show_is_not_called_level() -> None:
    choice = choose_epochs(OVERFITTED[:2])
    assert choice.rises_after is None
    assert choice.sentence.endswith("; it ends 79 % above that, and 2 seeds cannot tell whether by more than chance")


def test_a_rise_of_both_losses_is_not_overfitting() -> None:
    curve = bend(10, 0.1)
    choice = choose_epochs([curve] * 4, train_loss=[bend(12, 0.02)] * 4)
    assert (choice.rises_after, choice.overfitting) == (10, False)
    assert choice.sentence.endswith(
        "after 10 it rises, and the training loss with it: unstable, lower the learning rate"
    )
    assert choose_epochs([curve] * 4, train_loss=[bend(30, 0.0)] * 4).overfitting


def test_underfitting_is_a_level_loss_that_the_training_loss_is_not_below() -> None:
    curve = bend(10, 0.0)
    choice = choose_epochs([curve] * 4, train_loss=[[loss + 0.1 for loss in curve]] * 4)
    assert (choice.underfitting, choice.converged) == (True, True)
    assert choice.sentence.endswith(
        "; it stays level after that, and the training loss is no lower: underfitting, try a larger network or less "
        "regularisation"
    )
    assert not choose_epochs([curve] * 4, train_loss=[[loss - 0.1 for loss in curve]] * 4).underfitting
    assert not choose_epochs([curve] * 4).underfitting  # nothing is known of the training loss
    solved = [loss - 0.95 for loss in curve]
    assert not choose_epochs([solved] * 4, train_loss=[[loss + 0.1 for loss in solved]] * 4).underfitting
    falling = bend(30, 0.0)
    assert not choose_epochs([falling] * 4, train_loss=[[loss + 0.1 for loss in falling]] * 4).underfitting


def test_the_earliest_of_equals() -> None:
    assert choose_epochs([[2.0, 1.0, 1.5, 1.0]]).lowest_at == 2


def test_one_epoch() -> None:
    choice = choose_epochs([[0.7]])
    assert (choice.epochs, choice.converged, choice.low, choice.high) == (1, False, None, None)
    assert choice.sentence == (
        "1 epoch: validation loss is lowest at the last epoch, 1 (1 seed: no interval): not converged, raise --epochs"
    )


def test_one_seed_has_no_interval_and_chooses_the_lowest() -> None:
    choice = choose_epochs([bend(8, 0.1)])
    assert (choice.epochs, choice.lowest_at, choice.low, choice.high, choice.indicative) == (8, 8, None, None, True)
    assert choice.sentence == (
        "8 epochs: validation loss is lowest at 8 (1 seed: no interval); after 8 it rises: overfitting"
    )


def test_one_worse_epoch_at_the_end_is_not_called_overfitting() -> None:
    sentence = choose_epochs([[2.0, 1.0, 1.2]]).sentence
    assert sentence == (
        "2 epochs: validation loss is lowest at 2 (1 seed: no interval); "
        "the one epoch after it is worse, too little to speak of overfitting"
    )


def images(n_seeds: int, n_images: int, spread: float) -> list[np.ndarray]:
    """Return losses per image whose means are a bend at 10, with images that disagree about where it is."""
    rng = np.random.default_rng(3)
    tilt = rng.normal(0, spread, n_images)[None, :] * np.linspace(-1, 1, 20)[:, None]
    curve = np.asarray(bend(10, 0.01, 20, 0.03))[:, None] + tilt
    return [(curve + rng.normal(0, 0.01, (20, n_images))).astype(np.float32) for _ in range(n_seeds)]


@pytest.mark.parametrize("n_seeds", [1, 5])
def test_images_that_disagree_widen_the_interval(n_seeds: int) -> None:
    def width(spread: float) -> int:
        losses = images(n_seeds, 100, spread)
        choice = choose_epochs([each.mean(axis=1).tolist() for each in losses], losses)
        assert choice.low is not None
        assert choice.high is not None
        return choice.high - choice.low

    assert width(0.0) <= 2
    assert width(1.0) >= 8


def test_with_one_seed_the_standard_error_is_that_of_images() -> None:
    losses = images(1, 30, 0.5)
    choice = choose_epochs([losses[0].mean(axis=1).tolist()], losses)
    assert choice.epochs < choice.lowest_at
    assert "(indicative: 1 seed), and" in choice.sentence


def test_a_memory_map_gives_the_same(tmp_path: Path) -> None:
    losses = images(3, 5000, 0.3)
    maps = []
    for number, each in enumerate(losses):
        np.save(tmp_path / f"{number}.npy", each)
        maps.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    means = [each.mean(axis=1).tolist() for each in losses]
    assert choose_epochs(means, maps) == choose_epochs(means, losses)


def test_one_image_says_nothing_of_others() -> None:
    losses = images(3, 1, 0.3)
    means = [each.mean(axis=1).tolist() for each in losses]
    assert choose_epochs(means, losses) == choose_epochs(means)


def test_the_seed_draws_the_interval_and_nothing_else_does() -> None:
    curves = seeds(bend(15, 0.004, fall=0.01), 5, 0.05)
    assert choose_epochs(curves, seed=1) == choose_epochs(curves, seed=1)


def test_the_window_is_centred_shrinks_at_the_ends_and_leaves_straight_lines_alone() -> None:
    window = smoothing_window(20)
    assert window.sum(axis=1) == pytest.approx(np.ones(20))
    assert window @ np.arange(20) == pytest.approx(np.arange(20))
    assert [int((row > 0).sum()) for row in window] == [1] * 4 + [3] * 15 + [1]


@pytest.mark.parametrize("curves", [[], [[]], [[1.0, 2.0], [1.0]]])
def test_curves_that_do_not_fit_together(curves: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="equally long"):
        choose_epochs(curves)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        choose_epochs([[1.0, value]])
    with pytest.raises(ValueError, match="losses per image hold a value that is not finite"):
        choose_epochs([[1.0, 2.0]], [np.array([[1.0, 1.0], [value, 1.0]])])


def test_shapes_that_do_not_fit_the_validation_loss() -> None:
    with pytest.raises(ValueError, match=r"training-loss curves are \(1, 3\), validation-loss curves \(1, 2\)"):
        choose_epochs([[1.0, 2.0]], train_loss=[[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match=r"one array of \(2 epochs, images\) for each of 1 seed"):
        choose_epochs([[1.0, 2.0]], [np.zeros((3, 5))])

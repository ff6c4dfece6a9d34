import pytest

from analysis.epochs import choose_epochs


def test_the_lowest_mean_wins_and_a_rise_is_called_overfitting() -> None:
    falling = [3.0 - 0.1 * epoch for epoch in range(17)]
    rising = [1.4 + 0.1 * epoch for epoch in range(1, 14)]
    curve = falling + rising
    choice = choose_epochs([curve, [loss + 0.2 for loss in curve], [loss - 0.2 for loss in curve]])
    assert (choice.epochs, choice.lowest_at, choice.n_seeds, choice.converged) == (17, 17, 3, True)
    assert choice.mean == pytest.approx(curve)
    assert choice.sentence == (
        "17 epochs: the mean validation loss of 3 seeds is lowest at epoch 17 of 30; after that it rises: overfitting"
    )


def test_the_mean_decides_not_any_single_seed() -> None:
    choice = choose_epochs([[1.0, 3.0, 2.0], [3.0, 1.5, 1.6]])
    assert choice.epochs == 3
    assert choice.mean == pytest.approx([2.0, 2.25, 1.8])


def test_lowest_at_the_last_epoch_is_not_converged() -> None:
    choice = choose_epochs([[2.0 - 0.1 * epoch for epoch in range(12)]] * 2)
    assert not choice.converged
    assert choice.sentence == (
        "12 epochs: the mean validation loss of 2 seeds is lowest at the last epoch: not converged, raise --epochs"
    )


def test_a_negligible_rise_is_level() -> None:
    assert choose_epochs([[2.0, 1.0, 1.005, 1.009]]).sentence == (
        "2 epochs: the validation loss of 1 run is lowest at epoch 2 of 4; it stays level after that"
    )
    assert choose_epochs([[2.0, 1.0, 1.005, 1.011]]).sentence.endswith("after that it rises: overfitting")


def test_the_earliest_of_equals() -> None:
    assert choose_epochs([[2.0, 1.0, 1.5, 1.0]]).epochs == 2


def test_one_epoch() -> None:
    choice = choose_epochs([[0.7]])
    assert (choice.epochs, choice.converged) == (1, False)
    assert choice.sentence.startswith("1 epoch: the validation loss of 1 run is lowest at the last epoch")


@pytest.mark.parametrize("curves", [[], [[]], [[1.0, 2.0], [1.0]]])
def test_curves_that_do_not_fit_together(curves: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="equally long"):
        choose_epochs(curves)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        choose_epochs([[1.0, value]])


def test_one_worse_epoch_at_the_end_is_not_called_overfitting() -> None:
    sentence = choose_epochs([[2.0, 1.0, 1.2]]).sentence
    assert sentence == (
        "2 epochs: the validation loss of 1 run is lowest at epoch 2 of 3; "
        "the one epoch after it is worse, too little to speak of overfitting"
    )

"""What an analysis would take: its trainings counted, and their time by hand."""

import pytest

from analysis.price import Price, price
from foundation import RequestError

ALIKE = {"cnn": (3.0, 3.0), "vgg11": (3.0, 3.0)}


def of(**more: int) -> Price:
    asked = {"trials": 20, "epochs": 10, "slots": 1, "finalists": 2, "seeds": 2} | more
    return price(ALIKE, val_share=0.0, **asked)  # type: ignore[arg-type]


def test_every_contender_is_trained_twice_with_every_seed() -> None:
    found = of()
    assert (found.contenders, found.trainings) == (4, 16)
    retrained = 8 * 10 * 3.0
    assert retrained * 4 / 3 < found.seconds.low < found.seconds.middle < found.seconds.high < retrained * 2
    assert found.seconds.middle == pytest.approx(retrained * 5 / 3, rel=0.03)
    assert of(slots=2).seconds.middle == pytest.approx(found.seconds.middle / 2, rel=0.05)


def test_there_are_no_more_contenders_than_trials() -> None:
    assert of(trials=3).contenders == 3
    assert of(trials=1).contenders == 1


def test_folds_take_the_place_of_the_first_runs() -> None:
    found = of(folds=5)
    assert found.trainings == 4 * (5 + 2)
    in_fold = 4 / 5 + 1 / 15  # of an epoch on all images: trained on four parts, validated on the fifth
    assert found.seconds.middle == pytest.approx(4 * 30 * (5 * in_fold + 2 * 2 / 3), rel=0.03)


def test_validation_images_count_once_they_are_trained_on() -> None:
    asked = {"trials": 20, "epochs": 10, "slots": 1, "finalists": 2, "seeds": 2}
    half = price(ALIKE, val_share=0.5, **asked)  # type: ignore[arg-type]
    assert half.seconds.middle == pytest.approx(240 * (1 + 2 / 3 * 1.5 / (1 + 0.5 / 3)), rel=0.03)


def test_numbers_that_no_analysis_takes_are_refused_all_at_once() -> None:
    with pytest.raises(RequestError) as refused:
        of(finalists=0, seeds=-1, folds=1)
    assert list(refused.value.problems) == [
        "--finalists 0: at least 1 is needed",
        "--seeds -1: at least 1 is needed",
        "--folds 1: 2 or more make a cross-validation, 0 none",
    ]

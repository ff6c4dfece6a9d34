import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from analysis.metrics import CURVE_POINTS, classification_metrics, over_seeds, reliability


def test_figures_that_can_be_counted_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    scores = classification_metrics(probabilities, np.array([0, 0, 1, 1]), ("cat", "dog"))
    assert scores["n_images"] == 4
    assert scores["accuracy"] == 0.75
    assert scores["balanced_accuracy"] == 0.75
    assert scores["confusion"] == [[2, 0], [1, 1]]
    assert scores["precision"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert scores["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.7, 0.1]).mean())
    assert scores["auc"] == pytest.approx(0.5)
    assert scores["per_class"][1] == {
        "class": "dog",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
        "predicted": 1,
    }
    assert "top5_accuracy" not in scores
    json.dumps(scores, allow_nan=False)


def test_classes_never_predicted_or_absent_are_counted_without_a_warning() -> None:
    probabilities = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1]])
    scores = classification_metrics(probabilities, np.array([0, 1, 2]), ("a", "b", "c", "d"))
    assert scores["never_predicted"] == 2
    assert scores["absent"] == 1
    assert scores["balanced_accuracy"] == pytest.approx(2 / 3)
    assert scores["per_class"][3]["support"] == 0
    assert scores["precision_recall"][3]["average_precision"] is None
    assert scores["roc"][3] == {"class": "d", "fpr": [], "tpr": [], "auc": None}
    json.dumps(scores, allow_nan=False)


def test_one_class_alone_has_no_roc() -> None:
    scores = classification_metrics(np.array([[0.9, 0.1]]), np.array([0]), ("a", "b"))
    assert scores["accuracy"] == 1.0
    assert scores["auc"] is None


def test_many_images_and_classes() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 3000)
    logits[np.arange(3000), labels] += 1
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    scores = classification_metrics(probabilities, labels, list("abcdefg"))
    fifth = np.sort(logits, axis=1)[:, -5]
    assert scores["top5_accuracy"] == pytest.approx((logits[np.arange(3000), labels] >= fifth).mean())
    for curve in scores["roc"]:
        assert 50 < len(curve["fpr"]) <= CURVE_POINTS
        assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
        assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(curve["auc"], abs=0.005)
    for number, curve in enumerate(scores["precision_recall"]):
        assert 50 < len(curve["recall"]) <= CURVE_POINTS
        assert curve["recall"] == sorted(curve["recall"])
        whole = average_precision_score(labels == number, probabilities[:, number])
        assert curve["average_precision"] == pytest.approx(whole)
        kept = np.diff(curve["recall"], prepend=0.0) @ np.asarray(curve["precision"])
        assert kept == pytest.approx(whole, abs=0.02)  # what is drawn is what was measured
    assert scores["average_precision"] == pytest.approx(
        np.mean([curve["average_precision"] for curve in scores["precision_recall"]])
    )


def test_calibration_compares_how_sure_with_how_often_right() -> None:
    sure = np.repeat([0.95, 0.65], [100, 50])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    labels = np.concatenate([np.repeat([0, 1], [80, 20]), np.repeat([0, 1], [40, 10])])
    bins = reliability(probabilities, labels)
    assert [(round(row["confidence"], 6), row["accuracy"], row["n"]) for row in bins] == [
        (0.65, 0.8, 50),
        (0.95, 0.8, 100),
    ]
    scores = classification_metrics(probabilities, labels, ("a", "b"))
    assert scores["calibration_error"] == pytest.approx((0.15 * 100 + 0.15 * 50) / 150)
    perfect = classification_metrics(np.eye(2), np.array([0, 1]), ("a", "b"))
    assert (perfect["calibration_error"], perfect["average_precision"]) == (0.0, 1.0)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) for 2 labels and 2 classes"):
        classification_metrics(np.ones((2, 3)) / 3, np.array([0, 1]), ("a", "b"))


def test_interval_over_seeds_is_students() -> None:
    spread = over_seeds([0.70, 0.72, 0.74])
    assert spread["mean"] == pytest.approx(0.72)
    assert spread["high"] == pytest.approx(0.72 + 4.302653 * 0.02 / 3**0.5)
    assert spread["low"] == pytest.approx(0.72 - 4.302653 * 0.02 / 3**0.5)
    assert spread["n"] == 3


def test_one_seed_has_no_interval() -> None:
    assert over_seeds([0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}


def test_only_proportions_stay_inside_0_and_1() -> None:
    assert (over_seeds([0.0, 1.0])["low"], over_seeds([0.0, 1.0])["high"]) == (0.0, 1.0)
    assert over_seeds([0.0, 1.0], proportion=False)["low"] == pytest.approx(0.5 - 12.7062 * 0.5, abs=1e-3)


def test_equal_seeds_have_an_interval_of_no_width() -> None:
    assert over_seeds([0.25, 0.25])["low"] == 0.25


def test_no_seed_at_all() -> None:
    with pytest.raises(ValueError, match="one value at least"):
        over_seeds([])

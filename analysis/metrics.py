"""What a set of predictions is worth, and what several seeds of it say; scikit-learn and SciPy do the arithmetic.

Both are imported inside the functions, so that reading a finished analysis does not wait for them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# More points than this on a curve cannot be told apart on a screen.
CURVE_POINTS = 101
RELIABILITY_BINS = 15  # as in Guo et al., 2017


def classification_metrics(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], classes: Sequence[str]
) -> dict[str, Any]:
    """Return what one model's predictions are worth, as a dictionary that JSON can hold.

    `probabilities` is (images, classes) with rows that add up to 1, `labels` (images,) holds class numbers.

    Keys: `n_images`, `accuracy`, `balanced_accuracy`, `precision`, `recall`, `f1` (means over classes, each class
    counting the same), `log_loss` (natural logarithm), `auc` and `average_precision` (means over the classes that have
    one), `top5_accuracy` (only with more than 5 classes), `confusion` (rows: true class, columns: predicted),
    `per_class` (a list of `class, precision, recall, f1, support, predicted`), `roc` (a list of `class, fpr, tpr, auc`,
    one against the rest, 101 points at most), `precision_recall` (a list of `class, recall, precision,
    average_precision`, likewise), `calibration_error` and `reliability` (see `reliability`).

    A class that was never predicted has precision 0; `never_predicted` counts those. A class without an image
    among `labels` is left out of the means (its figures are 0 over a support of 0); `absent` counts those, and
    their curves have no points and areas of None. Raises ValueError for shapes that do not fit together.
    """
    from sklearn import metrics

    n_classes = len(classes)
    if probabilities.shape != (len(labels), n_classes) or not len(labels):
        raise ValueError(f"probabilities are {probabilities.shape} for {len(labels)} labels and {n_classes} classes")
    numbers = np.arange(n_classes)
    predicted = probabilities.argmax(axis=1)
    confusion = metrics.confusion_matrix(labels, predicted, labels=numbers)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=numbers, average=None, zero_division=0
    )
    present, ever = support > 0, confusion.sum(axis=0)
    scores = {
        "n_images": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "precision": float(precision[present].mean()),
        "recall": float(recall[present].mean()),
        "f1": float(f1[present].mean()),
        "log_loss": float(metrics.log_loss(labels, _normalised(probabilities), labels=numbers)),
        "never_predicted": int((ever == 0).sum()),
        "absent": int((~present).sum()),
        "confusion": confusion.tolist(),
        "per_class": _per_class(classes, precision, recall, f1, support, ever),
        **_curves(probabilities, labels, classes),
        **_calibration(probabilities, labels),
    }
    if n_classes > 5:
        scores["top5_accuracy"] = float(metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=numbers))
    return scores


def over_seeds(values: Sequence[float], *, proportion: bool = True) -> dict[str, float | int | None]:
    """Return the mean of one figure over seeds and its 95 % interval, as `{mean, low, high, n}`.

    The interval is Student's t with n - 1 degrees of freedom ("Student", 1908): it speaks of other seeds, not of
    other test images. With one value `low` and `high` are None. A `proportion` keeps its interval inside 0..1.
    Raises ValueError when there is no value.
    """
    if not len(values):
        raise ValueError("a mean over seeds needs one value at least")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return {"mean": mean, "low": None, "high": None, "n": 1}
    from scipy.stats import t

    reach = float(t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    low, high = mean - reach, mean + reach
    if proportion:
        low, high = max(0.0, low), min(1.0, high)
    return {"mean": mean, "low": low, "high": high, "n": n}


def _per_class(classes: Sequence[str], *columns: NDArray[Any]) -> list[dict[str, Any]]:
    names = ("class", "precision", "recall", "f1", "support", "predicted")
    rows = zip(classes, *(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _normalised(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return rows that add up to 1 in float64: a float32 softmax misses it by more than scikit-learn accepts."""
    rows = probabilities.astype(np.float64)
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def _calibration(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> dict[str, Any]:
    bins = reliability(probabilities, labels)
    distance = sum(abs(row["accuracy"] - row["confidence"]) * row["n"] for row in bins)
    return {"calibration_error": distance / len(labels), "reliability": bins}


def reliability(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> list[dict[str, float | int]]:
    """Return how often the model was right, by how sure it was: `{confidence, accuracy, n}` of each bin with images.

    `confidence` is the mean probability of the predicted class, `accuracy` the share that was right. The mean of their
    distance over images is the expected calibration error (Naeini et al., 2015), here with 15 bins of equal width as in
    Guo et al., 2017.
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    return [
        {"confidence": float(sure[chosen].mean()), "accuracy": float(right[chosen].mean()), "n": int(chosen.sum())}
        for number in range(RELIABILITY_BINS)
        if (chosen := bins == number).any()
    ]


def _curves(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], classes: Sequence[str]
) -> dict[str, Any]:
    """Return the curves of every class against the rest, and the means of their areas."""
    of_class = [(name, labels == number, probabilities[:, number]) for number, name in enumerate(classes)]
    roc, precision_recall = [_roc(*each) for each in of_class], [_precision_recall(*each) for each in of_class]
    return {
        "auc": _mean_of("auc", roc),
        "average_precision": _mean_of("average_precision", precision_recall),
        "roc": roc,
        "precision_recall": precision_recall,
    }


def _mean_of(name: str, curves: Sequence[dict[str, Any]]) -> float | None:
    """Return the mean of an area over the classes that have one."""
    areas = [curve[name] for curve in curves if curve[name] is not None]
    return float(np.mean(areas)) if areas else None


def _roc(name: str, positive: NDArray[np.bool_], score: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Return one class's ROC curve; without both a positive and a negative image there is none."""
    from sklearn import metrics

    if positive.all() or not positive.any():
        return {"class": name, "fpr": [], "tpr": [], "auc": None}
    fpr, tpr, _ = metrics.roc_curve(positive, score)
    kept = _spread_out(fpr, tpr)
    return {"class": name, "fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist(), "auc": float(metrics.auc(fpr, tpr))}


def _precision_recall(name: str, positive: NDArray[np.bool_], score: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """Return one class's precision-recall curve, by rising recall; without a positive image there is none."""
    from sklearn import metrics

    if not positive.any():
        return {"class": name, "recall": [], "precision": [], "average_precision": None}
    precision, recall, _ = metrics.precision_recall_curve(positive, score)
    precision, recall = precision[::-1], recall[::-1]
    kept = _spread_out(recall, precision)
    area = float(metrics.average_precision_score(positive, score))
    curve = {"recall": recall[kept].tolist(), "precision": precision[kept].tolist()}
    return {"class": name, **curve, "average_precision": area}


def _spread_out(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return which points of a curve to keep: evenly along it, so that its steep part is not lost."""
    if len(x) <= CURVE_POINTS:
        return np.arange(len(x))
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    places = np.searchsorted(along, np.linspace(0.0, along[-1], CURVE_POINTS))
    return np.unique(places.clip(0, len(x) - 1)).astype(np.int64)

"""How numbers are said to people: one way of writing percentages, intervals, durations and knob values."""

from collections.abc import Iterable, Mapping
from typing import Any

from foundation import count

MISSING = "–"

# The figures of a test in the order they are shown: what people call each, and whether it is a share.
FIGURES = {
    "accuracy": ("accuracy", True),
    "top5_accuracy": ("top-5 accuracy", True),
    "precision": ("precision", True),
    "recall": ("recall", True),
    "f1": ("F1", True),
    "auc": ("AUC", False),
    "average_precision": ("average precision", False),
    "log_loss": ("log loss", False),
    "calibration_error": ("calibration error", True),
}


def percent(share: float | None) -> str:
    """Return a share in 0..1 as "91.2 %"; a dash stands for None."""
    return MISSING if share is None else f"{100 * share:.1f} %"


def decimal(value: float | None, places: int = 4) -> str:
    """Return a number with a fixed number of places; a dash stands for None."""
    return MISSING if value is None else f"{value:.{places}f}"


def interval(spread: Mapping[str, Any], *, share: bool = True) -> str:
    """Return "90.1 to 92.3 %" for a `{mean, low, high, n}`; a dash where there is no interval."""
    if spread["low"] is None:
        return MISSING
    if share:
        return f"{100 * spread['low']:.1f} to {percent(spread['high'])}"
    return f"{decimal(spread['low'])} to {decimal(spread['high'])}"


def over_runs(spread: Mapping[str, Any]) -> str:
    """Return a share with its interval and n: "91.2 % (3 runs, 95 % interval 90.1 to 92.3 %)", or "91.2 % (1 run)"."""
    said = count(spread["n"], "run")
    if spread["low"] is not None:
        said += f", 95 % interval {interval(spread)}"
    return f"{percent(spread['mean'])} ({said})"


def knob(value: object) -> str:
    """Return a hyperparameter's value: four significant digits for a float, a dash for a knob that is not active."""
    if value is None:
        return MISSING
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def figure_rows(test: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return (figure, mean, 95 % interval, number of runs) for each figure of a contender's `test`."""
    return [
        (
            name,
            percent(test[key]["mean"]) if share else decimal(test[key]["mean"]),
            interval(test[key], share=share),
            str(test[key]["n"]),
        )
        for key, (name, share) in FIGURES.items()
        if test.get(key)
    ]


def joined(parts: list[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def points(share: float, *, signed: bool = True) -> str:
    """Return a difference of shares in percentage points: "+2.1 points", or "2.1 points" where it is not signed."""
    return f"{100 * share:+.1f} points" if signed else f"{100 * share:.1f} points"


def probability(p: float) -> str:
    """Return a p-value as "p = 0.01", "p = 0.004" or "p < 0.001"; two places from 0.01 on."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"


def resizing(description: Mapping[str, Any]) -> str:
    """Return how a decoded image becomes what the model of a `model.json` sees."""
    _, height, width = description["image_shape"]
    what = "the centre square" if description["resize"] == "crop" else "the whole image, whatever its shape,"
    how = "interpolated linearly; where a side shrinks to two thirds or less, all that shrink are averaged before"
    return f"{what} is scaled to {width} x {height} pixels; {how}; what is transparent is laid over white before"


def with_air(values: Iterable[float]) -> tuple[float, float]:
    """Return the range that values fit in with a little air, so that plots of them can share an axis; 0..1 of none."""
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    air = 0.05 * ((high - low) or 1.0)
    return low - air, high + air

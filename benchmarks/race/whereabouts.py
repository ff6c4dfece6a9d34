"""Where the time of our slots went in a race, from its ledger: in epochs, before the first trial, and between."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from table import OURS, read_lines


@dataclass(frozen=True)
class Shares:
    """Shares of the time of all slots; what is missing to 1 went to starting, reporting and stopping trials."""

    epochs: float  # in `Training.epoch()`, those included that the clock cut
    evaluation: float  # of that, in whole epochs: what was not spent on the training images
    before: float  # until the first trial began


def shares(repeat: Path, limit_seconds: float) -> Shares:
    """Return the shares of one repeat, whose folder has our ledger and the race's log made of it."""
    rows = read_lines(repeat / OURS / "ledger.jsonl")
    epochs = [row for row in rows if row["event"] == "epoch"]
    logged = read_lines(repeat / OURS / "log.jsonl")[0]
    start = epochs[0]["time"] - logged["time"]  # the first line of the log is the first epoch's, by another clock
    end = start + limit_seconds
    slots = _slots(rows)
    images = {(row["trial"], row["epoch"]): row["images"] for row in read_lines(repeat / OURS / "log.jsonl")}
    whole_epochs = [row for row in epochs if (row["trial"], row["epoch"]) in images]
    in_whole = sum(row["seconds"] for row in whole_epochs)
    training = sum(images[row["trial"], row["epoch"]] / row["images_per_second"] for row in whole_epochs)
    first = min(row["time"] for row in rows if row["event"] == "started")
    whole = slots * limit_seconds
    return Shares((in_whole + _cut(rows, end)) / whole, (in_whole - training) / whole, slots * (first - start) / whole)


def _slots(rows: Sequence[dict[str, Any]]) -> int:
    """Return how many trials ran side by side at the most."""
    running: set[int] = set()
    most = 0
    for row in rows:
        if row["event"] == "started":
            running.add(row["trial"])
        elif row["event"] == "ended":
            running.discard(row["trial"])
        most = max(most, len(running))
    return most


def _cut(rows: Sequence[dict[str, Any]], end: float) -> float:
    """Return the seconds of epochs that had begun and not ended when the time was over."""
    last: dict[int, float] = {}
    for row in rows:
        if row["time"] > end:
            break
        if row["event"] in ("started", "epoch"):
            last[row["trial"]] = row["time"]
        elif row["event"] == "ended":
            last.pop(row["trial"], None)
    return sum(end - time for time in last.values())


def sentence(repeats: Sequence[Path], limit_seconds: float) -> str:
    """Return what the table says of it, medians over the repeats."""
    found = [shares(repeat, limit_seconds) for repeat in repeats]
    epochs, before = median(each.epochs for each in found), median(each.before for each in found)
    evaluation = median(each.evaluation for each in found)
    rest = median(1 - each.epochs - each.before for each in found)
    return (
        f"Of our slots' time {epochs:.0%} were epochs, evaluation included ({evaluation:.1%}), {before:.0%} went by "
        f"before the first trial, and {rest:.1%} between epochs and trials, where reports, ledger, TensorBoard and "
        "checkpoints are."
    )

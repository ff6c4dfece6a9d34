"""What the logs of a race say: one row per contestant, medians over the repeats with their range."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

from scipy.stats import ttest_1samp

OURS = "ours"
WANTED = 2.5  # times the images of the best of the others
FIRST = 8  # configurations that all begin with
ENDED = ("0", "killed")  # how a contestant ends that has not failed


@dataclass(frozen=True)
class Run:
    """One contestant in one repeat: its epochs in order of time, as the rows of its log.

    `paces` are the seconds from one epoch's end to the next one's, of each of the configurations that all begin with.
    """

    epochs: tuple[dict[str, Any], ...]
    paces: dict[int, float]

    @property
    def trials(self) -> int:
        """How many trials ended their first epoch (so one that goes on under a new name counts once)."""
        return sum(row["epoch"] == 1 for row in self.epochs)

    @property
    def images(self) -> int:
        """How many images its networks were trained on, in epochs that ended."""
        return sum(row["images"] for row in self.epochs)

    @property
    def best(self) -> float:
        """The best validation accuracy of all."""
        return max((row["val_accuracy"] for row in self.epochs), default=0.0)

    def reached(self, wanted: float) -> float:
        """Return the seconds until an epoch ended with that validation accuracy or a better one; inf if none did."""
        return min((row["time"] for row in self.epochs if row["val_accuracy"] >= wanted), default=math.inf)


def read_run(folder: Path, limit_seconds: float) -> Run:
    """Return what a contestant's log says about the time that counts."""
    rows = [row for row in read_lines(folder / "log.jsonl") if row["time"] <= limit_seconds]
    ledger = folder / "ledger.jsonl"  # ours, which knows when a trial began: one epoch is enough
    paced = [row for row in read_lines(ledger) if row["event"] in ("started", "epoch")] if ledger.exists() else rows
    return Run(tuple(sorted(rows, key=lambda row: row["time"])), paces(paced))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def paces(rows: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Return the median seconds between two rows of a trial, of each of the first trials that has two.

    All try the same configurations first, and number their trials in that order: `7`, or `4efe2_00007` for Ray.
    """
    times: defaultdict[int, list[float]] = defaultdict(list)
    for row in rows:
        times[int(str(row["trial"]).rpartition("_")[2])].append(row["time"])
    first = min(times, default=0)
    return {
        number - first: median(after - before for before, after in pairwise(its))
        for number, its in times.items()
        if number - first < FIRST and len(its) > 1
    }


def spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Return the median, and the range where there is one."""
    middle = write(median(values))
    return middle if len(set(values)) == 1 else f"{middle} ({write(min(values))} to {write(max(values))})"


def seconds_text(seconds: float) -> str:
    """Return seconds as a reader wants them."""
    return "never" if math.isinf(seconds) else f"{seconds:.0f} s"


def share_text(share: float) -> str:
    """Return a share in percent."""
    return "never" if math.isinf(share) else f"{share:.0%}"


def difference(shares: Sequence[float]) -> str:
    """Return the mean of differences in points, with its interval by Student's t where there are several."""
    points = f"{100 * fmean(shares):+.1f}"
    if len(set(shares)) < 2:
        return points
    interval = ttest_1samp(shares, 0.0).confidence_interval(0.95)
    return f"{points} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def ratio(ours: float, theirs: float) -> float:
    """Return ours / theirs, infinite where they have none."""
    return ours / theirs if theirs else math.inf


HEADER = (
    "contestant",
    "trials",
    "images trained",
    "ours / theirs",
    "same configuration, times as fast",
    "best val. accuracy",
    "ours less theirs, points (95 %)",
    "best at",
    "ours as good at",
    "share of the clock's time",
    "share of the time to their best",
)


def cells(name: str, runs: Sequence[Run], ours: Sequence[Run], limit_seconds: float) -> tuple[str, ...]:
    """Return the row of a contestant, repeat by repeat beside ours."""
    first = (
        name,
        spread([run.trials for run in runs], lambda value: f"{value:.0f}"),
        spread([run.images for run in runs], lambda value: f"{value:,.0f}"),
    )
    best = spread([run.best for run in runs], lambda value: f"{value:.3f}")
    own = [run.reached(run.best) for run in runs]
    best_at = spread(own, seconds_text)
    if name == OURS:
        return (*first, "", "", best, "", best_at, "", "", "")
    reached = [mine.reached(run.best) for mine, run in zip(ours, runs, strict=True)]
    ratios = [ratio(mine.images, run.images) for mine, run in zip(ours, runs, strict=True)]
    faster = [
        run.paces[number] / mine.paces[number]
        for mine, run in zip(ours, runs, strict=True)
        for number in mine.paces.keys() & run.paces.keys()
    ]
    return (
        *first,
        spread(ratios, lambda value: f"{value:.2f}"),
        f"{spread(faster, lambda value: f'{value:.2f}')}, n = {len(faster)}" if faster else "",
        best,
        difference([mine.best - run.best for mine, run in zip(ours, runs, strict=True)]),
        best_at,
        spread(reached, seconds_text),
        spread([seconds / limit_seconds for seconds in reached], share_text),
        spread([mine / theirs for mine, theirs in zip(reached, own, strict=True)], share_text),
    )


def whole_repeats(out: Path, names: Sequence[str]) -> tuple[list[Path], Counter[str]]:
    """Return the folders of the repeats in `out` that all names have run and ended without an error, and who did not.

    Someone who was stopped because the time was over has not failed.
    """
    ran = [path for path in sorted(out.glob("repeat-*")) if all((path / name / "log.jsonl").exists() for name in names)]
    failed = [
        (path, name) for path in ran for name in names if (path / name / "status").read_text().strip() not in ENDED
    ]
    spoilt = {path for path, _ in failed}
    return [path for path in ran if path not in spoilt], Counter(name for _, name in failed)


def read_runs(repeats: Sequence[Path], names: Sequence[str], limit_seconds: float) -> dict[str, list[Run]]:
    """Return each contestant's runs, repeat by repeat."""
    return {name: [read_run(repeat / name, limit_seconds) for repeat in repeats] for name in names}


def most_images(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return how many times the images of whoever else trained most ours were trained on, over the repeats."""
    others = zip(*(its for name, its in runs.items() if name != OURS), strict=True)
    ratios = [ratio(mine.images, max(run.images for run in its)) for mine, its in zip(runs[OURS], others, strict=True)]
    reached = sum(each > WANTED for each in ratios)
    middle = spread(ratios, lambda value: f"{value:.2f}")
    share = f"more than {WANTED} times in {reached} of {len(ratios)}"
    return f"Ours trained {middle} times the images of whoever else trained most, {share}."


def wins(runs: Mapping[str, Sequence[Run]]) -> int:
    """Return in how many repeats nobody had a better validation accuracy than ours."""
    best = {name: [run.best for run in its] for name, its in runs.items()}
    return sum(ours == max(all_best) for ours, *all_best in zip(best[OURS], *best.values(), strict=True))


def table(runs: Mapping[str, Sequence[Run]], limit_seconds: float) -> str:
    """Return the table in Markdown."""
    rows = [HEADER, *(cells(name, runs[name], runs[OURS], limit_seconds) for name in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])

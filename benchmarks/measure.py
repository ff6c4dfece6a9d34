"""What the benchmarks share: contenders measured in turn, tables with n, median and spread, and where they are kept.

Each benchmark is a file that can be run on its own: `.venv/bin/python benchmarks/epoch.py` prints its table, and with
`--keep` also puts it in the place of the one before in `benchmarks/RESULTS.md`.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

HOUSE = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")
ZIP = Path(os.environ.get("CONVSCOUT_CIFAR10", HOUSE.parent / "shared" / "data" / "cifar10.zip"))  # of real images
sys.path.insert(0, str(HOUSE))  # the rooms are found from any folder, installed or not


def options(docstring: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark's command line, which knows `--keep`."""
    parser = argparse.ArgumentParser(description=docstring)
    parser.add_argument("--keep", action="store_true", help="put the table into benchmarks/RESULTS.md")
    return parser


@dataclass(frozen=True)
class Figures:
    """What several measurements of one thing gave."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(min(self.values))}–{_short(max(self.values))})"


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int = 5, before: int = 1) -> dict[str, Figures]:
    """Return the figures of each contender, measured in turn: A B C, A B C, ...; `before` rounds do not count.

    So that a machine which becomes slower or faster meanwhile does so for all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + before):
        for name, measure in contenders.items():
            figure = measure()
            if number >= before:
                found[name].append(figure)
    return {name: Figures(tuple(values)) for name, values in found.items()}


def ratios(ours: Figures, theirs: Figures) -> Figures:
    """Return ours / theirs, round by round."""
    return Figures(tuple(a / b for a, b in zip(ours.values, theirs.values, strict=True)))


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def tell(name: str, title: str, text: str, keep: bool) -> None:
    """Print a benchmark's outcome, and keep it in RESULTS.md if that is asked for.

    `name` is the command without its folder, as far as it says what is measured: `overhead.py --trials 20`. The section
    of that name is replaced, all others stay: what was measured of less never takes the place of what was of more.
    """
    section = f"## {title}\n\n{date.today()}, {machine()}, {commit()}. `benchmarks/{name}`.\n\n{text.strip()}\n"
    print(section)
    if keep:
        RESULTS.write_text(_with_section(RESULTS.read_text() if RESULTS.exists() else "", name, section))


def _with_section(page: str, name: str, section: str) -> str:
    marked = f"<!-- {name} -->\n{section}"
    parts = [part.strip() + "\n" for part in re.split(r"(?=<!-- [^\n]+ -->\n)", page)]
    begins = [part.startswith(f"<!-- {name} -->\n") for part in parts]
    if any(begins):
        parts[begins.index(True)] = marked
    else:
        parts.append(marked)
    return "\n".join(part for part in parts if part.strip())


def machine() -> str:
    """Return what the figures were taken on: the processor, its cores, and the versions that matter."""
    import torch

    from trainables.device import name_of

    cores = len(os.sched_getaffinity(0))
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{name_of(torch.device('cpu'))}, {cores} cores{gpu}, {versions}"


def commit() -> str:
    """Return which commit the figures were taken on, and whether files were other than in it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=HOUSE, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS.relative_to(HOUSE)}")
        return f"commit {git('rev-parse', '--short', 'HEAD')}{' and changes' if changed else ''}"
    except (OSError, subprocess.CalledProcessError):
        return "a copy without commits"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

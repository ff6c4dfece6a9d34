"""What a report is made of: sections of sentences, tables and figures. Figures hold numbers; drawing.py draws them."""

import re
from dataclasses import dataclass
from typing import Any

# What analysis.json holds; experiment.py makes it, and the report is drawn from nothing else.
Analysis = dict[str, Any]

NOT_ANALYSED = "the analysis has not been run to its end: `convscout analyze` makes these numbers"

_NUMBER = re.compile(r"[-+]?\d[\d.,e+-]*( (%|s|min|h|of|to).*)?|–")


@dataclass(frozen=True)
class Table:
    """A table of ready-made texts; `marked` holds the numbers of rows that deserve a second look."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers in every row, and are aligned right."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.header)
        return tuple(bool(column) and all(_NUMBER.fullmatch(cell) for cell in column) for column in columns)


@dataclass(frozen=True)
class Line:
    """One line of a plot. Lines of one `group` share a colour and hide together; a `faint` one is not in the legend."""

    name: str
    group: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    faint: bool = False


@dataclass(frozen=True)
class Plot:
    """Lines over one pair of axes, with an optional upright mark at `mark` on the x axis.

    Plots beside one another share `y_range`, so that they can be compared by eye.
    """

    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...]
    mark: float | None = None
    mark_text: str = ""
    y_range: tuple[float, float] | None = None
    square: bool = False


@dataclass(frozen=True)
class Points:
    """A group of points in a scatter plot; `x` holds numbers, or texts that are categories."""

    name: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Scatter:
    """Groups of points over one pair of axes, with an optional line over them; `small` ones stand three in a row."""

    title: str
    x_title: str
    y_title: str
    groups: tuple[Points, ...]
    line: Line | None = None
    log_x: bool = False
    small: bool = False


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix: `counts` has a row per true class and a column per predicted class."""

    title: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Each row divided by its sum: the share of a class's images that got each label; 0 in an empty row."""
        return tuple(tuple(n / max(1, sum(row)) for n in row) for row in self.counts)


Figure = Plot | Scatter | HeatMap


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with the words below it and where it comes from."""

    uri: str
    caption: str
    path: str


@dataclass(frozen=True)
class Section:
    """A section whose numbers are there."""

    sentences: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    kind: str = "ready"

    @property
    def small(self) -> bool:
        """Whether its figures stand three in a row."""
        return any(isinstance(figure, Scatter) and figure.small for figure in self.figures)


@dataclass(frozen=True)
class NotYet:
    """A section whose numbers are not there yet, and why."""

    reason: str
    kind: str = "not yet"


@dataclass(frozen=True)
class Failed:
    """A section that could not be made: shown in the report, which goes on without it."""

    reason: str
    kind: str = "failed"

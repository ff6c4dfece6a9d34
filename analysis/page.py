"""What a report is made of: sections of sentences, tables and figures. Figures hold numbers; drawing.py draws them."""

import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

# What analysis.json holds; experiment.py makes it, and the report is drawn from nothing else.
Analysis = dict[str, Any]

# The numbers of a figure as its reader can have them: the names of the columns, and the rows.
Row = tuple[Any, ...]
Numbers = tuple[tuple[str, ...], tuple[Row, ...]]

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
    """One line of a plot. Lines of one `group` share a colour and hide together; a `faint` one is not in the legend.

    A `stepped` line keeps each value until the next.
    """

    name: str
    group: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    faint: bool = False
    stepped: bool = False


@dataclass(frozen=True)
class Points:
    """Points of a plot that look alike, those of one `group`; `x` are numbers, or names out of the plot's categories.

    `texts` are what pointing at each of them shows. `strength` in 0..1 makes them faint.
    """

    name: str
    group: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]
    texts: tuple[str, ...]
    strength: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What every figure has: a sentence that says what it shows, below it in the report, and where it stands.

    Figures of one `heading` stand together below it, as many beside one another as their `size` allows.
    """

    sentence: str = ""
    heading: str = ""
    size: Literal["small", "medium", "wide"] = "medium"


@dataclass(frozen=True)
class Plot(Figure):
    """Lines and points over one pair of axes, with an optional upright mark at `mark` on the x axis.

    Plots beside one another share `y_range`, so that they can be compared by eye. With `categories` the x axis is
    these names in their order; else `x_ticks` are what is written along it, where they are given.
    """

    title: str
    x_title: str
    y_title: str
    lines: tuple[Line, ...] = ()
    points: tuple[Points, ...] = ()
    mark: float | None = None
    mark_text: str = ""
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_ticks: tuple[float, ...] = ()
    x_log: bool = False
    categories: tuple[str, ...] = ()
    square: bool = False

    @property
    def numbers(self) -> Numbers:
        """A row per number drawn."""
        rows: list[Row] = [(line.name, x, y) for line in self.lines for x, y in zip(line.x, line.y, strict=True)]
        if not self.points:
            return ("series", self.x_title, self.y_title), tuple(rows)
        rows = [(*row, "") for row in rows]
        for points in self.points:
            rows += [(points.name, *row) for row in zip(points.x, points.y, points.texts, strict=True)]
        return ("series", self.x_title, self.y_title, "note"), tuple(rows)


@dataclass(frozen=True)
class HeatMap(Figure):
    """A confusion matrix: `counts` has a row per true class and a column per predicted class."""

    title: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Each row divided by its sum: the share of a class's images that got each label; 0 in an empty row."""
        return tuple(tuple(n / max(1, sum(row)) for n in row) for row in self.counts)

    @property
    def numbers(self) -> Numbers:
        """A row per true class."""
        rows = tuple((name, *row) for name, row in zip(self.names, self.counts, strict=True))
        return ("true class", *self.names), rows


@dataclass(frozen=True)
class Axis:
    """An axis of parallel coordinates: the value of each trial, where that lies in 0..1, and what is written where.

    A trial without a value has None, and a place below 0; `texts` say the values to people.
    """

    name: str
    values: tuple[Any, ...]
    texts: tuple[str, ...]
    places: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Parallel(Figure):
    """Parallel coordinates: upright axes beside one another, and a line through them for each of the `trials`.

    `bands` are what the lines are coloured by, best first: a name, and the numbers of the lines in it.
    """

    title: str
    trials: tuple[str, ...]
    axes: tuple[Axis, ...]
    bands: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def numbers(self) -> Numbers:
        """A row per trial, a column per axis."""
        rows = tuple(zip(self.trials, *(axis.values for axis in self.axes), strict=True))
        return ("trial", *(axis.name for axis in self.axes)), rows


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
    figures: tuple[Plot | HeatMap | Parallel, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    kind: str = "ready"

    @property
    def panels(self) -> list[tuple[str, str, list[Plot | HeatMap | Parallel]]]:
        """The figures that stand together: their heading, their size, and they."""
        grouped = groupby(self.figures, key=lambda figure: (figure.heading, figure.size))
        return [(heading, size, list(figures)) for (heading, size), figures in grouped]


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

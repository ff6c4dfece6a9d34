"""The sections of the report that show scores against hyperparameters: one by one, and all of them side by side."""

import math
from typing import Any

from analysis.importance import ABSENT, position
from analysis.page import Analysis, Axis, NotYet, Parallel, Plot, Points, Section
from analysis.scored import Scored, best, said, scored
from analysis.wording import joined, knob, with_air
from cluster.arrivals import METRICS
from foundation import count
from spaces.domains import Choice, Domain, Integer, LogUniform, bare, grid, is_number, plain, text
from spaces.space import Space

FEWEST_TRIALS = 5
# Of an architecture: more points, in two dozen plots, take a browser too long.
MOST_TRIALS = 300
# Of parallel coordinates, as many axes as a laptop shows legibly; the others follow below.
AXES_IN_A_ROW = 8
# The shares of the trials in the bands of parallel coordinates, best first; what they leave is the last one.
BANDS = ((0.1, "best tenth"), (0.25, "others of the best quarter"), (0.5, "others of the better half"))
# What is said of a knob that is not active, and how far below its axis.
INACTIVE = "not active"
_BELOW = -0.12
_MOST_LETTERS = 16
Trials = tuple[Space, list[Scored]]


def slices(analysis: Analysis) -> Section | NotYet:
    """The score of each trial against each hyperparameter, per architecture, and the ranges that were too narrow."""
    found, left_out = _by_architecture(analysis)
    if not found:
        return NotYet(f"not enough trials: {FEWEST_TRIALS} of one architecture are needed that have a score")
    rungs = sorted({trial.row["rung"] for _, trials in found for trial in trials if trial.group == "stopped"})
    stopped = f"; open ones were stopped, the fainter the earlier ({_rungs(rungs)})" if rungs else ""
    sentences = [
        f"Each dot is a trial (1 run): its {analysis['experiment']['metric']} at its best epoch against one "
        f"hyperparameter, all others differing too. Filled dots ran to the end{stopped}."
    ]
    figures, found_edges = [], (analysis.get("learned") or {}).get("edges")
    for space, trials in found:
        edges = [edge for edge in found_edges or () if edge["architecture"] == space.architecture]
        at_the_edge = [edge["knob"] for edge in edges]
        sentences += [f"{space.architecture}, {edge['sentence']}." for edge in edges]
        y_range = with_air([trial.score for trial in trials])
        figures += [
            _slice(space, name, [each for each in trials if name in each.config], rungs, y_range, name in at_the_edge)
            for name in _varied(space, trials)
        ]
    if found_edges == []:
        sentences.append("No range was found too narrow, with its best trials crowding at an edge.")
    return Section((*sentences, *left_out), figures=tuple(figures))


def _by_architecture(analysis: Analysis) -> tuple[list[Trials], list[str]]:
    """Return the spaces of the architectures with enough trials to draw, and these trials, best by leaderboard first.

    Trials have a score and did not fail. Also returned are sentences on what is left out.
    """
    trials = scored(analysis, "completed", "stopped")
    found, left_out = [], []
    for name, rows in analysis["experiment"]["spaces"].items():
        own = [trial for trial in trials if trial.row["architecture"] == name]
        if len(own) >= FEWEST_TRIALS:
            found.append((Space.from_rows(rows), own[:MOST_TRIALS]))
        else:
            left_out.append(f"{name}: not enough trials, {len(own)} of {FEWEST_TRIALS} that are needed.")
        if len(own) > MOST_TRIALS:
            left_out.append(f"{name}: the first {MOST_TRIALS} of {len(own):,} in the leaderboard are drawn.")
    return found, left_out


def _rungs(rungs: list[int]) -> str:
    return joined([f"at epoch {rung}" if rung else "before the first rung" for rung in rungs])


def _varied(space: Space, trials: list[Scored]) -> list[str]:
    """Return the knobs that have more than one value in the trials, in the order of the space."""
    return [
        name for name in space.knobs if len({plain(trial.config[name]) for trial in trials if name in trial.config}) > 1
    ]


def _slice(
    space: Space, name: str, trials: list[Scored], rungs: list[int], y_range: tuple[float, float], at_the_edge: bool
) -> Plot:
    domain = space.knobs[name].domain
    inner, winner = bare(domain), best(trials)
    groups = [("ran to the end", "completed", 1.0, [trial for trial in trials if trial.group == "completed"])]
    for number, rung in enumerate(rungs):
        of_rung = [trial for trial in trials if trial.group == "stopped" and trial.row["rung"] == rung]
        groups.append((f"stopped at {rung}", "stopped", number / len(rungs), of_rung))
    points = tuple(
        Points(
            series,
            group,
            tuple(_shown(inner, trial.config[name]) for trial in of_group),
            tuple(trial.score for trial in of_group),
            tuple(f"{name} {_value(trial.config[name])}; {trial.text}" for trial in of_group),
            strength,
        )
        for series, group, strength, of_group in groups
        if of_group
    )
    edge = ", at the edge of its range: widen it" if at_the_edge else ""
    of = "" if isinstance(inner, Choice) else f", {text(domain)}"
    return Plot(
        title=name,
        x_title="",
        y_title="",
        points=points,
        x_range=None if isinstance(inner, Choice) else (inner.low, inner.high),
        x_log=isinstance(inner, LogUniform) or (isinstance(inner, Integer) and inner.log),
        x_ticks=_ticks(inner),
        y_range=y_range,
        categories=_categories(inner),
        sentence=f"{count(len(trials), 'trial')}{of}; best at {_value(winner.config[name])} ({winner.name}){edge}.",
        heading=space.architecture,
        size="small",
    )


def _categories(domain: Domain) -> tuple[str, ...]:
    if not isinstance(domain, Choice):
        return ()
    options = sorted(domain.options) if all(map(is_number, domain.options)) else domain.options
    return tuple(_named(option) for option in options)


def _ticks(domain: Domain) -> tuple[float, ...]:
    """Return what to write along a range: powers of ten, a few whole numbers, or what the plot itself chooses."""
    match domain:
        case LogUniform(low, high) | Integer(low, high, _, True):
            exponents = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
            each = 1 + len(exponents) // 4
            return tuple(10.0**exponent for exponent in exponents[::each]) if len(exponents) > 1 else (low, high)
        case Integer():
            return tuple(map(float, grid(domain, 4)))
    return ()


def _shown(domain: Domain, value: Any) -> float | str:
    return _named(value) if isinstance(domain, Choice) else float(value)


def _value(value: Any) -> str:
    """Return a value as it would be written in a --space file, but for the digits that nobody needs."""
    return knob(value) if isinstance(value, float) else plain(value)


def _named(value: Any) -> str:
    """Return an option as a name; of a long one, as a path, the end."""
    name = _value(value)
    return name if len(name) <= _MOST_LETTERS else f"…{name[1 - _MOST_LETTERS :]}"


def parallel_coordinates(analysis: Analysis) -> Section | NotYet:
    """All hyperparameters of each trial side by side, per architecture, coloured by score."""
    found, left_out = _by_architecture(analysis)
    if not found:
        return NotYet(f"not enough trials: {FEWEST_TRIALS} of one architecture are needed that have a score")
    sentences = [
        "Each line is a trial: where it crosses an axis, it has that value; below an axis, the hyperparameter is not "
        "active in it. The first axis is the score, the best at the top; a click on the legend hides or shows a "
        "band of scores."
    ]
    figures = [figure for space, trials in found for figure in _parallels(space, trials)]
    return Section((*sentences, *left_out), figures=tuple(figures))


def _parallels(space: Space, trials: list[Scored]) -> list[Parallel]:
    """Return the parallel coordinates of an architecture, so many axes in each."""
    order = sorted(trials, key=lambda trial: -trial.rank)
    knobs = _varied(space, order)
    n_rows = math.ceil(len(knobs) / AXES_IN_A_ROW)
    each = math.ceil(len(knobs) / n_rows) if n_rows else 0
    names = tuple(trial.name for trial in order)
    score, bands = _score_axis(order), _bands(order)
    return [
        Parallel(
            title="",
            trials=names,
            axes=(score, *(_axis(name, space.knobs[name].domain, order) for name in knobs[first : first + each])),
            bands=bands,
            sentence=f"{count(len(order), 'trial')} of {space.architecture}: {order[0].metric} and "
            f"{len(knobs[first : first + each])} of {count(len(knobs), 'hyperparameter')}.",
            heading=space.architecture,
            size="wide",
        )
        for first in range(0, len(knobs), each or 1)
    ]


def _score_axis(order: list[Scored]) -> Axis:
    metric = order[0].metric
    ranks = [trial.rank for trial in order]
    low, high = min(ranks), max(ranks)
    ticks = {place: said(metric, METRICS[metric] * (low + place * (high - low))) for place in (0.0, 0.5, 1.0)}
    return Axis(
        metric,
        tuple(trial.score for trial in order),
        tuple(said(metric, trial.score) for trial in order),
        tuple((rank - low) / ((high - low) or 1.0) for rank in ranks),
        tuple(ticks.items()),
    )


def _axis(name: str, domain: Domain, order: list[Scored]) -> Axis:
    inner = bare(domain)
    values = tuple(trial.config.get(name) for trial in order)
    places = tuple(position(inner, value) for value in values)
    marked = inner.options if isinstance(inner, Choice) else grid(inner, 3)
    ticks = tuple((position(inner, value), _named(value)) for value in marked)
    return Axis(
        name,
        values,
        tuple(INACTIVE if value is None else _value(value) for value in values),
        tuple(_BELOW if place == ABSENT else place for place in places),
        (*ticks, (_BELOW, INACTIVE)) if ABSENT in places else ticks,
    )


def _bands(order: list[Scored]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the trials in bands of scores, best first, each with its range."""
    found, start = [], 0
    for share, name in (*BANDS, (1.0, "the other half")):
        end = math.ceil(share * len(order))
        of_band = order[start:end]
        if of_band:
            scores = [said(trial.metric, trial.score) for trial in (of_band[0], of_band[-1])]
            found.append((f"{name}: {' to '.join(dict.fromkeys(scores))}", tuple(range(start, end))))
        start = end
    return tuple(found)

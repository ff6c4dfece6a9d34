"""The sections of the report on how the search went: its history, its rungs, and each hyperparameter by itself."""

from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from analysis.page import Analysis, Line, NotYet, Points, Scatter, Section, Table
from analysis.wording import decimal, joined, knob, percent
from foundation import count

NO_TRIALS = "no trial of the search has finished an epoch"
STATES = ("completed", "stopped", "failed")
SIDE_BY_SIDE = ("optimizer", "activation", "schedule", "batch_norm")
MOST_SLICES = 12

Row = dict[str, Any]


def history_of_the_best(analysis: Analysis) -> Section | NotYet:
    """The trials in the order they were proposed, each at its best epoch, and the best value so far."""
    metric, trials = _scored(analysis)
    if not trials:
        return NotYet(NO_TRIALS)
    trials.sort(key=lambda row: row["trial"])
    best: list[float] = []
    when = 0
    for row in trials:
        value = row[metric]
        if not best or _better(value, best[-1], metric):
            when = row["trial"]
        best.append(value if not best or _better(value, best[-1], metric) else best[-1])
    groups = tuple(
        Points(state, tuple(row["trial"] for row in of_state), tuple(row[metric] for row in of_state))
        for state in STATES
        if (of_state := [row for row in trials if _state(row) == state])
    )
    line = Line("best so far", "mean", tuple(row["trial"] for row in trials), tuple(best))
    after = f"trial {when}, {when + 1} of {len(analysis['search']['trials'])}"
    sentence = f"Each trial at its best epoch (1 run each); the best, {_value(best[-1], metric)}, came with {after}."
    return Section((sentence,), figures=(Scatter("", "trial", metric, groups, line),))


def stopped_where(analysis: Analysis) -> Section | NotYet:
    """How many trials reached each rung, went on and were stopped there, and why the others ended."""
    search = analysis.get("search") or {}
    if not search.get("by_status"):
        return NotYet("no trial of the search has ended yet")
    rungs = search["rungs"]
    rows = tuple(
        (str(r["epoch"]), str(r["went_on"] + r["stopped"]), str(r["went_on"]), str(r["stopped"])) for r in rungs
    )
    causes = {"patience": "ran out of patience", "budget": "were stopped because the time budget was used up"}
    others = [f"{n} {causes[cause]}" for cause, n in search["stops"].items() if cause in causes]
    failed = [f"{n} {status.replace('_', ' ')}" for status, n in search["by_status"].items()]
    sentences = [f"Of all trials {joined(failed)}."]
    if others:
        sentences.append(f"Of these {joined(others)}.")
    if not rungs:
        sentences.append("The method stops no trial early at a rung.")
        return Section(tuple(sentences))
    sentences.append(
        "A rung compares a trial with those that got there before it: the worse two thirds stop. The sentence of each "
        "decision is in the leaderboard and in the ledger."
    )
    header = ("rung, epochs", "trials that got there", "went on", "were stopped")
    return Section(tuple(sentences), tables=(Table("", header, rows),))


def slices(analysis: Analysis) -> Section | NotYet:
    """Each hyperparameter by itself against the score at the best epoch, by architecture."""
    metric, trials = _scored(analysis)
    if len(trials) < 3:
        return NotYet(f"not enough trials: {count(len(trials), 'trial')} finished an epoch")
    figures = []
    for architecture in dict.fromkeys(row["architecture"] for row in trials):
        of_it = [row for row in trials if row["architecture"] == architecture]
        names = [name for name in dict.fromkeys(n for row in of_it for n in row["config"]) if _varies(name, of_it)]
        figures += [_slice(architecture, name, of_it, metric) for name in names[:MOST_SLICES]]
    sentence = (
        f"{metric} of each trial at its best epoch (1 run each) against one hyperparameter; all others vary too, so a "
        "trend here can be that of another. Stopped trials ran for fewer epochs."
    )
    return Section((sentence,), figures=tuple(figures))


def options_side_by_side(analysis: Analysis) -> Section | NotYet:
    """Optimizers, activations and the like: how many trials each option had, and what they reached."""
    metric, trials = _scored(analysis)
    tables = []
    for architecture in dict.fromkeys(row["architecture"] for row in trials):
        of_it = [row for row in trials if row["architecture"] == architecture]
        for name in SIDE_BY_SIDE:
            if _varies(name, of_it):
                tables.append(_options(architecture, name, of_it, metric))
    if not tables:
        return NotYet("no optimizer, activation or schedule varied among trials that finished an epoch")
    sentence = (
        "A search is no controlled comparison: options differ in how often they were tried, and with which other "
        "values (TPE tries more often what did well). `convscout analyze RUN --ablate optimizer` compares with "
        "all else equal."
    )
    return Section((sentence,), tables=tuple(tables))


def _scored(analysis: Analysis) -> tuple[str, list[Row]]:
    """Return the metric, and the trials that have a value of it."""
    metric = analysis["experiment"]["metric"]
    trials = (analysis.get("search") or {}).get("trials") or []
    return metric, [row for row in trials if row.get(metric) is not None]


def _better(value: float, other: float, metric: str) -> bool:
    return value < other if metric == "val_loss" else value > other


def _value(value: float, metric: str) -> str:
    return decimal(value) if metric == "val_loss" else percent(value)


def _state(row: Row) -> str:
    return row["status"] if row["status"] in STATES else "failed"


def _varies(name: str, trials: Sequence[Row]) -> bool:
    return len({str(row["config"][name]) for row in trials if name in row["config"]}) > 1


def _slice(architecture: str, name: str, trials: Sequence[Row], metric: str) -> Scatter:
    having = [row for row in trials if name in row["config"]]
    values = [row["config"][name] for row in having]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    log = numbers and min(values) > 0 and max(values) / min(values) >= 20
    groups = tuple(
        Points(
            state,
            tuple(row["config"][name] if numbers else knob(row["config"][name]) for row in of_state),
            tuple(row[metric] for row in of_state),
        )
        for state in STATES
        if (of_state := [row for row in having if _state(row) == state])
    )
    return Scatter(f"{architecture}: {name}", name, metric, groups, log_x=log, small=True)


def _options(architecture: str, name: str, trials: Sequence[Row], metric: str) -> Table:
    values: dict[str, list[Row]] = {}
    for row in trials:
        if name in row["config"]:
            values.setdefault(knob(row["config"][name]), []).append(row)
    best = min if metric == "val_loss" else max
    rows = []
    for option, of_option in values.items():
        scores = [row[metric] for row in of_option]
        ended = Counter(row["status"] for row in of_option)
        rows.append((best(scores), option, scores, ended))
    rows.sort(key=lambda row: row[0], reverse=metric != "val_loss")
    shown = tuple(
        (option, str(len(scores)), str(ended["completed"]), _value(median(scores), metric), _value(top, metric))
        for top, option, scores, ended in rows
    )
    header = (name, "trials", "ran to the end", f"median {metric}", f"best {metric}")
    return Table(f"{architecture}: {name}", header, shown)

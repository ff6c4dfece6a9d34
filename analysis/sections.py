"""The sections of the report: one function each, from analysis.json to sentences, tables and numbers to draw.

A section whose numbers are missing says why. One that breaks becomes a visible `Failed`, and the others still come:
that is how the analyses of Ax (facebook/Ax, 2024) are put together.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from analysis.comparison import comparison, one_knob_changed
from analysis.findings import could_still_win, what_mattered
from analysis.page import NOT_ANALYSED, Analysis, Failed, Line, NotYet, Plot, Section, Table
from analysis.searched import best_so_far, side_by_side, stopped_trials
from analysis.slices import parallel_coordinates, slices
from analysis.summary import summary
from analysis.tested import (
    calibration,
    confusion_matrix,
    figures_on_test,
    precision_recall,
    roc_curves,
    worst_mistakes,
)
from analysis.troubles import troubles
from analysis.wording import MISSING, decimal, knob, over_runs, percent, with_air
from foundation import count, duration

Content = Section | NotYet | Failed

# Longer tables are in trials.csv; nobody scrolls through more than this in a report.
LEADERBOARD_ROWS = 100
CURVES = (("loss", "cross-entropy"), ("accuracy", "accuracy"))
MAIN_KNOBS = ("learning_rate", "optimizer", "batch_size", "weight_decay", "dropout")


def learning_curves(analysis: Analysis) -> Section | NotYet:
    """Loss and accuracy per epoch of each contender: every seed faint, the mean over completed seeds strong."""
    contenders = [contender for contender in analysis.get("contenders") or [] if contender.get("curves")]
    if not contenders:
        return NotYet(NOT_ANALYSED)
    measures = [(name, axis, _value_range(contenders, name)) for name, axis in CURVES]
    figures = [_curves_plot(contender, *measure) for contender in contenders for measure in measures]
    sentences = list(map(_curves_sentence, contenders))
    if folds := analysis["folds"]:
        sentences.append(
            f"Cross-validation over train and validation together: each run trained on all but one of {folds} parts "
            "and was validated on that one, so curves differ by seed and by images."
        )
    return Section(tuple(sentences), figures=tuple(figures))


def leaderboard(analysis: Analysis) -> Section | NotYet:
    """The trials of the search, best first: how far each went, why it ended, what it reached, its main knobs."""
    trials = (analysis.get("search") or {}).get("trials") or []
    if not trials:
        return NotYet("no trial of the search has ended yet")
    shown = trials[:LEADERBOARD_ROWS]
    knobs = [name for name in MAIN_KNOBS if any(name in trial["config"] for trial in shown)]
    header = ("rank", "trial", "architecture", "rung", "epochs", "status", "val_loss", "val_accuracy")
    rows = tuple(
        (
            str(rank),
            str(trial["trial"]),
            trial["architecture"],
            str(trial["rung"]),
            f"{trial['epochs_run']} of {trial['epochs']}",
            trial["status"],
            decimal(trial["val_loss"]),
            percent(trial["val_accuracy"]),
            *(knob(trial["config"].get(name)) for name in knobs),
            MISSING if trial.get("n_params") is None else f"{trial['n_params']:,}",
            duration(trial["seconds"]),
            _why_ended(trial),
        )
        for rank, trial in enumerate(shown, start=1)
    )
    sentences = [
        "Each trial is 1 run, judged on the validation split at its best epoch. Those that reached the highest rung "
        "come first, whatever others scored on the way; the rung of one that ran to the end is the last epoch."
    ]
    if len(trials) > len(shown):
        sentences.append(f"The best {len(shown)} of {len(trials):,} trials; all of them are in trials.csv.")
    return Section(tuple(sentences), tables=(Table("", (*header, *knobs, "parameters", "time", "why it ended"), rows),))


def configuration(analysis: Analysis) -> Section | NotYet:
    """The contenders' hyperparameters side by side; rows in which they differ are marked."""
    contenders = analysis.get("contenders") or []
    if not contenders:
        return NotYet(NOT_ANALYSED)
    configs = [contender["config"] for contender in contenders]
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [("architecture", *(contender["architecture"] for contender in contenders))]
    rows += [(name, *(knob(config.get(name)) for config in configs)) for name in names]
    marked = frozenset(number for number, row in enumerate(rows) if len(set(row[1:])) > 1)
    sentence = f"{count(len(marked), 'hyperparameter')} of {len(names)} differ; a dash is a knob that is not active."
    table = Table("", ("hyperparameter", *(contender["name"] for contender in contenders)), tuple(rows), marked)
    return Section((sentence,) if len(contenders) > 1 else (), tables=(table,))


def provenance(analysis: Analysis) -> Section | NotYet:
    """The images per class and split, what was refused and why, and everything needed to run this again."""
    experiment = analysis["experiment"]
    counts, splits = experiment["counts"], ("train", "val", "test")
    per_class = [[(counts.get(split) or {}).get(name, 0) for split in splits] for name in experiment["classes"]]
    sums = [sum(column) for column in zip(*per_class, strict=True)]
    named = [("all", sums), *zip(experiment["classes"], per_class, strict=True)]
    rows = tuple((name, *(f"{n:,}" for n in (*numbers, sum(numbers)))) for name, numbers in named)
    tables = [Table("Images", ("class", *splits, "all"), rows)]
    refused = experiment.get("refused") or []
    if refused:
        lines = tuple((entry["path"], entry["reason"]) for entry in refused)
        tables.append(Table("Refused files", ("file", "reason"), lines))
    facts = {
        "data": experiment["data"],
        "fingerprint": experiment["fingerprint"],
        "image size": "{1} x {2} pixels, {0} channel(s)".format(*experiment["image_shape"]),
        "created": experiment.get("created"),
        "command line": experiment.get("command_line"),
        "seed": experiment.get("seed"),
        **{f"{name} version": version for name, version in (experiment.get("versions") or {}).items()},
    }
    n_refused = experiment.get("n_refused") or 0
    sentence = f"{count(sum(sums), 'image')} in {count(len(per_class), 'class')}; {count(n_refused, 'file')} refused"
    sentence += f", the first {len(refused)} are listed." if n_refused > len(refused) else "."
    sentences = [sentence, *_copies(experiment.get("copies") or {}, tables)]
    tables.append(Table("Run", ("", "value"), tuple((name, knob(value)) for name, value in facts.items())))
    return Section(tuple(sentences), tables=tuple(tables))


SECTIONS: dict[str, Callable[[Analysis], Section | NotYet]] = {
    "Summary": summary,
    "Comparison": comparison,
    "Learning curves": learning_curves,
    "Test figures": figures_on_test,
    "Confusion matrix": confusion_matrix,
    "Worst mistakes": worst_mistakes,
    "ROC curves": roc_curves,
    "Precision and recall": precision_recall,
    "Calibration": calibration,
    "Leaderboard": leaderboard,
    "History of the best": best_so_far,
    "Stopped trials": stopped_trials,
    "Could still win": could_still_win,
    "What mattered": what_mattered,
    "Slices": slices,
    "Parallel coordinates": parallel_coordinates,
    "Options side by side": side_by_side,
    "Configuration": configuration,
    "One knob changed": one_knob_changed,
    "What went wrong": troubles,
    "Data and provenance": provenance,
}


def build_sections(analysis: Analysis) -> dict[str, Content]:
    """Return every section by its title, in the order of the report; one that raises becomes `Failed`."""
    contents: dict[str, Content] = {}
    for title, build in SECTIONS.items():
        try:
            contents[title] = build(analysis)
        except Exception as error:  # whatever is wrong with one section must not take the others along
            contents[title] = Failed(f"{type(error).__name__}: {error}")
    return contents


def _copies(copies: dict[str, Any], tables: list[Table]) -> list[str]:
    """Return the sentence on copies of images, none without any; list those across splits in a table."""
    within = [f"{number} within {name}" for name, number in copies.get("within", {}).items() if number]
    if pairs := copies.get("pairs", ()):
        rows = tuple((pair["path"], pair["split"], pair["other_path"], pair["other_split"]) for pair in pairs)
        tables.append(Table("Copies across splits", ("file", "split", "same as", "split"), rows))
        left_out = f" ({copies['left_out']} left out of val and test)" if copies["left_out"] else ""
        within.append(f"{copies['across_splits']} across splits{left_out}")
    return [f"Copies of other images, exact or near: {', '.join(within)}."] if within else []


def _curves_sentence(contender: dict[str, Any]) -> str:
    choice = contender.get("epochs")
    said = f"{contender['name']}: {choice['sentence'] if choice else 'no number of epochs could be chosen'}."
    if accuracy := (contender.get("validation") or {}).get("val_accuracy"):
        said += f" Validation accuracy there: {over_runs(accuracy)}."
    failed = [f"seed {run['seed']} {run['status']}" for run in contender["curves"] if run["status"] != "completed"]
    return f"{said} Left out of the mean: {', '.join(failed)}." if failed else said


def _value_range(contenders: list[dict[str, Any]], measure: str) -> tuple[float, float]:
    """Return the range that all curves of a measure fit in, so that contenders share an axis.

    Those of runs that failed count only where there are no others: one that diverged would flatten the rest.
    """
    runs = [run for contender in contenders for run in contender["curves"]]
    return with_air(
        value
        for run in [run for run in runs if run["status"] == "completed"] or runs
        for split in ("train", "val")
        for value in run[f"{split}_{measure}"]
        if value is not None
    )


def _curves_plot(contender: dict[str, Any], measure: str, y_title: str, y_range: tuple[float, float]) -> Plot:
    """Return one contender's train and validation curves of a measure, the chosen epoch marked."""
    lines: list[Line] = []
    for split, group in (("train", "training"), ("val", "validation")):
        curves = {run["seed"]: run[f"{split}_{measure}"] for run in contender["curves"]}
        completed = [curves[run["seed"]] for run in contender["curves"] if run["status"] == "completed"]
        for seed, curve in curves.items():
            lines.append(_curve(f"{group}, seed {seed}", group, curve, faint=True))
        if completed:
            mean = np.mean(np.asarray(completed, dtype=np.float64), axis=0).tolist()
            of = "mean of " if len(completed) > 1 else ""
            lines.append(_curve(f"{group}, {of}{count(len(completed), 'run')}", group, mean))
    chosen = (contender.get("epochs") or {}).get("epochs")
    return Plot(
        title=f"{contender['name']}: {measure}",
        x_title="epoch",
        y_title=y_title,
        lines=tuple(lines),
        mark=chosen,
        mark_text=f"epoch {chosen}",
        y_range=y_range,
        sentence=f"Mean {measure} over the training and the validation images after each epoch; faint lines are "
        "single runs, upright is the number of epochs that was chosen.",
    )


def _curve(name: str, group: str, values: list[float | None], *, faint: bool = False) -> Line:
    return Line(name, group, tuple(range(1, len(values) + 1)), tuple(values), faint)


def _why_ended(trial: dict[str, Any]) -> str:
    """Return the first line of why a trial ended, cut to what a table can show."""
    lines = (trial.get("stop_reason") or trial.get("error") or "").strip().splitlines()
    first = lines[0] if lines else ""
    return first if len(first) <= 120 else first[:119] + "…"

"""The sections of the report that show what the test split said, about the contenders and the shipped model."""

from typing import Any

import numpy as np

from analysis.page import Analysis, HeatMap, Line, NotYet, Picture, Plot, Section, Table
from analysis.wording import FIGURES, decimal, figure_rows, percent
from foundation import count

# Past this many curves a plot is a tangle; the worst classes are the ones to look at.
ROC_CLASSES = 8
CONFUSIONS = 10

NOT_TESTED = "the test split has not been opened: `convscout analyze` opens it once, after the choice is written down"
NO_BREAK = "\u00a0"  # captions are narrow


def figures_on_test(analysis: Analysis) -> Section | NotYet:
    """What each contender reaches on the test split over its seeds, and the shipped model class by class."""
    tested = [contender for contender in analysis.get("contenders") or [] if contender.get("test")]
    if not tested:
        return NotYet(NOT_TESTED)
    order = [name for name, _ in FIGURES.values()]
    rows = [(row[0], contender["name"], *row[1:]) for contender in tested for row in figure_rows(contender["test"])]
    rows.sort(key=lambda row: order.index(row[0]))
    images = count(tested[0]["test"]["n_images"], "test image")
    sentences = [
        f"On {images}; precision, recall, F1 and AUC are means over classes.",
        "The intervals say what other seeds would give, not what other test images would.",
    ]
    tables = [Table("", ("figure", "contender", "mean", "95 % interval", "runs"), tuple(rows))]
    figures = shipped_figures(analysis)
    if not isinstance(figures, NotYet):
        sentences.append("The table by class is of the shipped model alone: 1 run.")
        tables.append(_per_class(figures))
    return Section(tuple(sentences), tables=tuple(tables))


def confusion_matrix(analysis: Analysis) -> Section | NotYet:
    """Which classes the shipped model takes for which: the whole matrix, and its largest errors as a list."""
    figures = shipped_figures(analysis)
    if isinstance(figures, NotYet):
        return figures
    names, counts = tuple(analysis["experiment"]["classes"]), tuple(tuple(row) for row in figures["confusion"])
    n_images = count(sum(map(sum, counts)), "test image")
    matrix = HeatMap("", names, counts, sentence=f"How many of {n_images} of each class got which label.")
    errors = [
        (n, true, predicted)
        for true, row in enumerate(counts)
        for predicted, n in enumerate(row)
        if n and true != predicted
    ]
    errors.sort(key=lambda error: (-error[0], error[1:]))
    rows = tuple(
        (names[true], names[predicted], str(n), percent(matrix.shares[true][predicted]))
        for n, true, predicted in errors[:CONFUSIONS]
    )
    wrong, total = sum(error[0] for error in errors), sum(map(sum, counts))
    return Section(
        (
            f"The shipped model (1 run) is wrong on {wrong:,} of {count(total, 'test image')}.",
            "Rows are the true classes; the stronger the colour, the larger the share of the class's images.",
        ),
        figures=(matrix,),
        tables=(Table("Most frequent mistakes", ("true class", "predicted", "images", "of the class"), rows),)
        if rows
        else (),
    )


def roc_curves(analysis: Analysis) -> Section | NotYet:
    """The shipped model's ROC curves, each class against the rest: the mean, and the classes with the lowest AUC."""
    figures = shipped_figures(analysis)
    if isinstance(figures, NotYet):
        return figures
    curves = sorted((curve for curve in figures["roc"] if curve["auc"] is not None), key=lambda curve: curve["auc"])
    if not curves:
        return NotYet("a ROC curve needs test images of two classes at least")
    grid = np.linspace(0.0, 1.0, 101)
    mean = np.mean([np.interp(grid, curve["fpr"], curve["tpr"]) for curve in curves], axis=0)
    mean[0] = 0.0
    lines = [Line(f"mean, AUC {figures['auc']:.3f}", "mean", tuple(grid.tolist()), tuple(mean.tolist()))]
    lines += [
        Line(f"{curve['class']}, AUC {curve['auc']:.3f}", f"class {number}", tuple(curve["fpr"]), tuple(curve["tpr"]))
        for number, curve in enumerate(curves[:ROC_CLASSES])
    ]
    lines.append(Line("chance", "chance", (0.0, 1.0), (0.0, 1.0), faint=True))
    sentence = f"The shipped model (1 run), each class against the rest: mean AUC {figures['auc']:.3f}."
    if len(curves) > ROC_CLASSES:
        sentence += (
            f" Drawn are the mean over all {len(curves)} classes and the {ROC_CLASSES} classes with the lowest AUC."
        )
    plot = Plot(
        "",
        "false positive rate",
        "true positive rate",
        tuple(lines),
        y_range=(0.0, 1.0),
        square=True,
        sentence="For every threshold, the share of a class's images that is found (up) against the share of others "
        "that is taken for it (to the right).",
    )
    return Section((sentence,), figures=(plot,))


def precision_recall(analysis: Analysis) -> Section | NotYet:
    """The shipped model's precision-recall curves, each class against the rest: those with the least area."""
    figures = shipped_figures(analysis)
    if isinstance(figures, NotYet):
        return figures
    curves = [curve for curve in figures["precision_recall"] if curve["average_precision"] is not None]
    curves.sort(key=lambda curve: curve["average_precision"])
    lines = tuple(
        Line(
            f"{curve['class']}, {curve['average_precision']:.3f}",
            f"class {number}",
            tuple(curve["recall"]),
            tuple(curve["precision"]),
        )
        for number, curve in enumerate(curves[:ROC_CLASSES])
    )
    sentence = (
        f"The shipped model (1 run), each class against the rest: mean average precision "
        f"{figures['average_precision']:.3f}."
    )
    if len(curves) > ROC_CLASSES:
        sentence += f" Drawn are the {ROC_CLASSES} of {len(curves)} classes with the lowest."
    plot = Plot(
        "",
        "recall",
        "precision",
        lines,
        y_range=(0.0, 1.02),
        square=True,
        sentence="For every threshold, the share of what is taken for a class that is of it (up) against the share of "
        "the class that is found (to the right).",
    )
    return Section((sentence,), figures=(plot,))


def calibration(analysis: Analysis) -> Section | NotYet:
    """Whether the shipped model is as often right as it says: accuracy by how sure it was."""
    figures = shipped_figures(analysis)
    if isinstance(figures, NotYet):
        return figures
    bins = figures["reliability"]
    sure = sum(row["confidence"] * row["n"] for row in bins) / figures["n_images"]
    distance = sure - figures["accuracy"]
    verdict = "about as sure as it is right"
    if abs(distance) >= 0.02:
        verdict = f"{100 * abs(distance):.1f} points {'surer than' if distance > 0 else 'less sure than'} it is right"
    sentences = (
        f"On the average the shipped model (1 run) is {percent(sure)} sure of its answers, and right in "
        f"{percent(figures['accuracy'])}: {verdict}.",
        f"Expected calibration error {percent(figures['calibration_error'])}: the mean distance of how sure it is from "
        f"how often it is right, over {count(len(bins), 'bin')} of {count(figures['n_images'], 'test image')}.",
    )
    lines = (
        Line(
            "shipped model",
            "validation",
            tuple(row["confidence"] for row in bins),
            tuple(row["accuracy"] for row in bins),
        ),
        Line("as sure as right", "chance", (0.0, 1.0), (0.0, 1.0), faint=True),
    )
    plot = Plot(
        "",
        "how sure it was",
        "how often it was right",
        lines,
        y_range=(0.0, 1.02),
        square=True,
        sentence="The line joins bins of answers with about the same probability: below the straight one the model is "
        "surer than it is right.",
    )
    rows = tuple((percent(row["confidence"]), percent(row["accuracy"]), f"{row['n']:,}") for row in bins)
    table = Table("", ("mean probability", "accuracy", "test images"), rows)
    return Section(sentences, figures=(plot,), tables=(table,))


def worst_mistakes(analysis: Analysis) -> Section | NotYet:
    """The test images that the shipped model was surest of, and wrong about: mistakes, hard cases, wrong labels."""
    if analysis.get("worst") is None:
        return NotYet(NOT_TESTED)
    if not analysis["worst"]:
        return NotYet("the shipped model made no mistake on the test images")
    pictures = tuple(
        Picture(
            row["image"],
            f"{row['true']}, taken for {row['predicted']} ({percent(row['probability']).replace(' ', NO_BREAK)})",
            row["path"],
        )
        for row in analysis["worst"]
    )
    sentence = (
        f"The {count(len(pictures), 'test image')} that the shipped model (1 run) was surest of another class than "
        "theirs, the surest first: look for wrong labels among them."
    )
    return Section((sentence,), pictures=pictures)


def shipped_figures(analysis: Analysis) -> dict[str, Any] | NotYet:
    """Return the test figures of the model that ships, or why there are none."""
    if not analysis.get("chosen"):
        return NotYet("no model has been chosen to ship; `convscout analyze` chooses one, then opens the test split")
    name = analysis["chosen"]["contender"]
    for contender in analysis.get("contenders") or []:
        if contender["name"] == name and contender.get("first_test"):
            return dict(contender["first_test"])
    return NotYet(NOT_TESTED)


def _per_class(figures: dict[str, Any]) -> Table:
    areas = {curve["class"]: curve["auc"] for curve in figures["roc"]}
    rows = tuple(
        (
            row["class"],
            *(percent(row[name]) for name in ("precision", "recall", "f1")),
            decimal(areas[row["class"]], 3),
            f"{row['support']:,}",
        )
        for row in figures["per_class"]
    )
    return Table("By class", ("class", "precision", "recall", "F1", "AUC", "test images"), rows)

"""The first section of the report: about ten lines that need no other page."""

from typing import Any

from analysis.page import Analysis, NotYet, Section
from analysis.wording import decimal, joined, over_runs, percent
from foundation import count, duration

MOST_COMPARISONS = 2  # the others are in their own section


def summary(analysis: Analysis) -> Section | NotYet:
    """What was found, against what, what was searched, for how many epochs to train, and which model ships."""
    search = analysis.get("search") or {}
    if not search.get("by_status"):
        return NotYet("no trial of the search has ended yet")
    contenders = analysis.get("contenders") or []
    sentences = [
        *_outcome(analysis, contenders),
        *_searched(analysis["experiment"], search),
        *_best_trial(analysis["experiment"], search, (analysis.get("learned") or {}).get("winner")),
        *_epochs(analysis, contenders),
        *_shipped(analysis),
    ]
    return Section(tuple(sentences))


def sentences(analysis: Analysis) -> tuple[str, ...]:
    """Return the summary for a terminal: its sentences, or why there is none yet."""
    found = summary(analysis)
    return (found.reason,) if isinstance(found, NotYet) else tuple(found.sentences)


def _outcome(analysis: Analysis, contenders: list[dict[str, Any]]) -> list[str]:
    tested = [contender for contender in contenders if contender.get("test")]
    if not tested:
        reason = (
            "the analysis has not been run to its end" if analysis["search"].get("trials") else "no trial has ended"
        )
        return [f"There are no test figures: {reason}."]
    chosen = (analysis.get("chosen") or {}).get("contender")
    first = next((contender for contender in tested if contender["name"] == chosen), tested[0])
    images = count(first["test"]["n_images"], "test image")
    accuracy = over_runs(first["test"]["accuracy"])
    sentences = [f"Test accuracy {accuracy} on {images}, with {first['name']}."]
    sentences += [f"{said}." for said in _comparisons(analysis, contenders)]
    opened = analysis.get("tests_opened") or 0
    if opened > 1:
        sentences.append(f"The test split was opened {opened} times: its figures are no longer those of unseen images.")
    return sentences


def _comparisons(analysis: Analysis, contenders: list[dict[str, Any]]) -> list[str]:
    """Return what may be said of the chosen contender against the baselines, that of its own architecture first.

    Where a baseline was chosen, what was tuned of its architecture takes that place.
    """
    rows = {contender["name"]: contender for contender in contenders}
    made = (analysis.get("comparisons") or {"configurations": ()})["configurations"]
    found = [row for row in made if rows[row["second"]]["baseline"] or _of_tuning(row, rows) or len(rows) == 2]
    found.sort(key=lambda row: rows[row["first"]]["architecture"] != rows[row["second"]]["architecture"])
    return [
        "Did tuning help? " * _of_tuning(row, rows) + row["sentence"].replace("no evidence", "No evidence", 1)
        for row in found[:MOST_COMPARISONS]
    ]


def _of_tuning(row: dict[str, Any], rows: dict[str, dict[str, Any]]) -> bool:
    """Whether a comparison says if tuning helped: of a tuned contender and the baseline of its architecture."""
    first, second = rows[row["first"]], rows[row["second"]]
    return bool(first["baseline"] != second["baseline"] and first["architecture"] == second["architecture"])


def _searched(experiment: dict[str, Any], search: dict[str, Any]) -> list[str]:
    images = {split: sum(numbers.values()) for split, numbers in experiment["counts"].items()}
    n_trials = sum(search["by_status"].values())
    trials, took = count(n_trials, "trial"), "it took" if n_trials == 1 else "together they took"
    how = f"{experiment['method']}, at most {count(experiment['epochs'], 'epoch')} each, seed {experiment['seed']}"
    ended = [f"{n} {status.replace('_', ' ')}" for status, n in search["by_status"].items()]
    rejected = search["rejected"]
    again = [count(rejected["impossible"], "impossible configuration")] if "impossible" in rejected else []
    if "too_long" in rejected:
        again.append(f"{count(rejected['too_long'], 'configuration')} too slow for what was left of the time budget")
    redrawn = f"; {joined(again)} drawn again" if again else ""
    n_refused = experiment.get("n_refused") or 0
    refused = f"; {count(n_refused, 'file')} refused" if n_refused else ""
    split = joined([f"{n:,} {name}" for name, n in images.items()])
    return [
        f"Searched: {trials} over {joined(list(experiment['architectures']))} ({how}); {took} "
        f"{duration(search['seconds'])}.",
        f"How the trials ended: {joined(ended)}{redrawn}.",
        f"Data: {experiment['data']}, {count(len(experiment['classes']), 'class')}, images: {split}{refused}.",
    ]


def _best_trial(experiment: dict[str, Any], search: dict[str, Any], winner: dict[str, Any] | None) -> list[str]:
    best = next((trial for trial in search.get("trials") or [] if trial["val_accuracy"] is not None), None)
    if best is None:
        return ["No trial of the search finished an epoch."]
    return [
        f"Best trial of the search by {experiment['metric']}: trial {best['trial']} ({best['architecture']}), "
        f"val_accuracy {percent(best['val_accuracy'])}, val_loss {decimal(best['val_loss'])} (1 run)"
        + (f"; {winner['sentence']}." if winner else ".")
    ]


def _epochs(analysis: Analysis, contenders: list[dict[str, Any]]) -> list[str]:
    """Return how many epochs the chosen contender is trained for, and why; before a choice, all of them."""
    chosen = (analysis.get("chosen") or {}).get("contender")
    return [
        f"Epochs, {row['name']}: {row['epochs']['sentence']}."
        for row in contenders
        if row.get("epochs") and row["name"] == (chosen or row["name"])
    ]


def _shipped(analysis: Analysis) -> list[str]:
    chosen = analysis.get("chosen")
    if not chosen:
        return ["No model ships yet: the choice has not been written down."]
    opened = "; the test split was opened once, after that choice" if analysis.get("tests_opened") == 1 else ""
    workers = analysis.get("trained_by")
    together = [f"{count(workers, 'worker')} together trained it, as every final model here."] if workers else []
    return [
        f"The model that ships: trial {chosen['trial']} ({chosen['contender']}, seed {chosen['seed']}): "
        f"{chosen['why'].rstrip('.')}{opened}.",
        *together,
    ]

"""The first section of the report: about ten lines that need no other page."""

from typing import Any

from analysis.page import Analysis, NotYet, Section
from analysis.wording import decimal, duration, joined, over_runs, percent
from foundation import count


def summary(analysis: Analysis) -> Section | NotYet:
    """What was found, against what, what was searched, for how many epochs to train, and which model ships."""
    search = analysis.get("search") or {}
    if not search.get("by_status"):
        return NotYet("no trial of the search has ended yet")
    contenders = analysis.get("contenders") or []
    sentences = [
        *_outcome(analysis, contenders),
        *_searched(analysis["experiment"], search),
        *_best_trial(analysis["experiment"], search),
        *_epochs(contenders),
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
    sentences = [f"Test accuracy {accuracy} on {images}, with the {first['name']} {first['architecture']}."]
    by_name = {contender["name"]: contender["test"]["accuracy"] for contender in tested}
    if {"tuned", "baseline"} <= by_name.keys():
        sentences.append(compared(by_name["tuned"], by_name["baseline"]))
    opened = analysis.get("tests_opened") or 0
    if opened > 1:
        sentences.append(f"The test split was opened {opened} times: its figures are no longer those of unseen images.")
    return sentences


def compared(tuned: dict[str, Any], baseline: dict[str, Any]) -> str:
    """Return one sentence on two `{mean, low, high, n}` test accuracies that claims no more than they hold."""
    same = tuned["n"] == baseline["n"]
    runs = f"{count(tuned['n'], 'run')} each" if same else f"{tuned['n']} and {count(baseline['n'], 'run')}"
    points = 100 * (tuned["mean"] - baseline["mean"])
    if abs(points) < 0.05:
        difference = "the means are equal"
    else:
        difference = f"the tuned mean is {abs(points):.1f} points {'higher' if points > 0 else 'lower'}"
    if tuned["low"] is None or baseline["low"] is None:
        caution = "with 1 run the difference may be chance"
    elif tuned["low"] > baseline["high"] or baseline["low"] > tuned["high"]:
        caution = "the two 95 % intervals do not overlap"
    else:
        caution = "the two 95 % intervals overlap, so the difference may be chance"
    return f"{runs}: tuned {_brief(tuned)}, baseline {_brief(baseline)}; {difference}, and {caution}."


def _brief(spread: dict[str, Any]) -> str:
    if spread["low"] is None:
        return percent(spread["mean"])
    return f"{percent(spread['mean'])} ({100 * spread['low']:.1f} to {100 * spread['high']:.1f})"


def _searched(experiment: dict[str, Any], search: dict[str, Any]) -> list[str]:
    images = {split: sum(numbers.values()) for split, numbers in experiment["counts"].items()}
    trials = count(sum(search["by_status"].values()), "trial")
    how = f"{experiment['method']}, at most {count(experiment['epochs'], 'epoch')} each, seed {experiment['seed']}"
    ended = [f"{n} {status.replace('_', ' ')}" for status, n in search["by_status"].items()]
    rejected = search["rejected"]
    again = [count(rejected["impossible"], "impossible configuration")] if "impossible" in rejected else []
    if "too_long" in rejected:
        again.append(f"{count(rejected['too_long'], 'configuration')} too slow for the time budget")
    redrawn = f"; {joined(again)} drawn again" if again else ""
    n_refused = experiment.get("n_refused") or 0
    refused = f"; {count(n_refused, 'file')} refused" if n_refused else ""
    split = joined([f"{n:,} {name}" for name, n in images.items()])
    return [
        f"Searched: {trials} over {joined(list(experiment['architectures']))} ({how}), {duration(search['seconds'])}.",
        f"How the trials ended: {joined(ended)}{redrawn}.",
        f"Data: {experiment['data']}, {count(len(experiment['classes']), 'class')}, images: {split}{refused}.",
    ]


def _best_trial(experiment: dict[str, Any], search: dict[str, Any]) -> list[str]:
    best = next((trial for trial in search.get("trials") or [] if trial["val_accuracy"] is not None), None)
    if best is None:
        return ["No trial of the search finished an epoch."]
    return [
        f"Best trial of the search by {experiment['metric']}: trial {best['trial']} ({best['architecture']}), "
        f"val_accuracy {percent(best['val_accuracy'])}, val_loss {decimal(best['val_loss'])} (1 run)."
    ]


def _epochs(contenders: list[dict[str, Any]]) -> list[str]:
    chosen = [(contender["name"], contender["epochs"]) for contender in contenders if contender.get("epochs")]
    return [f"Epochs, {name}: {choice['sentence']}." for name, choice in chosen]


def _shipped(analysis: Analysis) -> list[str]:
    chosen = analysis.get("chosen")
    if not chosen:
        return ["No model ships yet: the choice has not been written down."]
    opened = "; the test split was opened once, after that choice" if analysis.get("tests_opened") == 1 else ""
    return [
        f"The model that ships: trial {chosen['trial']} ({chosen['contender']}, seed {chosen['seed']}): "
        f"{chosen['why'].rstrip('.')}{opened}."
    ]

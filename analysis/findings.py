"""The sections of the report on what the search teaches: what its best score is worth, and what mattered."""

from typing import Any

from analysis.page import Analysis, NotYet, Section, Table
from analysis.wording import decimal, percent
from foundation import count

NO_TRIALS = "no trial of the search has finished an epoch"


def what_mattered(analysis: Analysis) -> Section | NotYet:
    """Each hyperparameter's share of the differences between trials, by architecture and rung, and narrow ranges."""
    learned = analysis.get("learned")
    if not learned or not learned["importance"]:
        return NotYet(NO_TRIALS)
    known = [found for found in learned["importance"] if not found["reason"]]
    sentences = [f"{found['sentence']}." for found in learned["importance"] if found["reason"]]
    if known:
        sentences.insert(
            0,
            "Shares of the variance between trials that a hyperparameter explains on its own, with 90 % intervals over "
            "random halves of the trials (functional ANOVA; Hutter, Hoos and Leyton-Brown, 2014); what they leave to "
            "100 % are interactions.",
        )
        cautions = dict.fromkeys(found["caution"] for found in known if found["caution"])
        sentences += [f"{caution}." for caution in cautions]
    sentences += [f"{edge['architecture']}, {edge['sentence']}." for edge in learned["edges"]]
    return Section(tuple(sentences), tables=tuple(map(_shares, known)))


def could_still_win(analysis: Analysis) -> Section | NotYet:
    """The stopped trials whose curve could still win, by an extrapolation with its interval."""
    learned = analysis.get("learned")
    if not learned:
        return NotYet(NO_TRIALS)
    found = learned["rescue"]
    if found["reason"]:
        return NotYet(found["reason"])
    stopped = count(found["n_stopped"], "stopped trial")
    sentence = (
        f"{found['n_could_win']} of {stopped} could still win, as far as the curves of the trials that ran to the end "
        "tell: a hint, since of real curves such intervals held 87 %, and late starters are missed."
    )
    if not found["trials"]:
        return Section((sentence,))
    run = analysis["experiment"].get("run") or analysis["experiment"]["name"]  # earlier versions had the name alone
    rows = tuple(
        (
            str(row["trial"]),
            str(row["epoch"]),
            decimal(row["score"]),
            decimal(row["predicted"]),
            f"{decimal(row['low'])} to {decimal(row['high'])}",
            decimal(row["best"]),
            f"convscout rescue {run} {row['trial']}",
        )
        for row in found["trials"]
    )
    header = ("trial", "stopped after", "best there", "expected at the end", "90 % interval", "the best now", "command")
    return Section((sentence,), tables=(Table("", header, rows),))


def _shares(found: dict[str, Any]) -> Table:
    title = f"{found['architecture']}, {count(found['n_trials'], 'trial')} at epoch {found['epoch']}, stopped ones too"
    rows = tuple(
        (row["knob"], percent(max(row["share"], 0.0)), f"{100 * max(row['low'], 0.0):.0f} to {percent(row['high'])}")
        for row in found["knobs"]
    )
    return Table(title, ("hyperparameter", "share", "90 % interval"), rows)

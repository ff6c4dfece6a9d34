"""The section of the report that compares the contenders on the test images, and says what cannot be said."""

from typing import Any

from analysis.page import Analysis, NotYet, Section, Table
from analysis.wording import MISSING, joined, knob, over_runs, points, probability
from foundation import count

HEADER = (
    "chosen",
    "against",
    "difference",
    "95 % interval",
    "p after Holm",
    "would have been found",
    "the two first models, p",
)
VARIANT_HEADER = (
    "knob",
    "value",
    "winner's",
    "epochs",
    "validation accuracy",
    "difference",
    "p after Holm",
    "would have been found",
)


def comparison(analysis: Analysis) -> Section | NotYet:
    """The chosen contender against each other one: over their seeds, and their first models image by image."""
    found = analysis.get("comparisons")
    if found is None:
        return NotYet("the test split has not been opened: `convscout analyze` opens it after the choice")
    if not found["configurations"]:
        return NotYet("there was no other contender to compare with")
    models = {row["second"]: row["p_value"] for row in found["models"]}
    rows = tuple(_row(row, models[row["second"]]) for row in found["configurations"])
    differ = frozenset(number for number, row in enumerate(found["configurations"]) if row["found"])
    alike = analysis["alike"]
    show = "shows" if len(differ) == 1 else "show"
    sentences = [
        f"On the validation images {alike['sentence']}; {_group(alike['group'])}.",
        f"{count(len(differ), 'comparison')} of {len(rows)} {show} a difference that other seeds and other test images "
        "would probably show too.",
        "Intervals and p-values are over seeds and test images together (a crossed bootstrap, widened to Student's t); "
        "p-values are corrected for the number of comparisons (Holm, 1979).",
        "What would have been found is the smallest difference that so many seeds and images show in 80 % of cases: "
        "a smaller one may be there, unseen; where it says none, there are too few seeds to find any.",
        "The last column is McNemar's exact test of two single models on these images: of other seeds it says nothing.",
    ]
    return Section(tuple(sentences), tables=(Table("", HEADER, rows, differ),))


def _group(names: list[str]) -> str:
    """Return who forms one group with the best: closer to it than two standard errors of the luck of seeds."""
    if len(names) == 1:
        return f"{names[0]} stands out from all others by more than that explains"
    return f"for it {joined(names)} cannot be told apart"


def _row(row: dict[str, Any], of_models: float) -> tuple[str, ...]:
    known = row["p_holm"] is not None
    return (
        row["first"],
        row["second"],
        points(row["difference"]),
        f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}" if known else MISSING,
        probability(row["p_holm"]) if known else MISSING,
        _detectable(row["detectable"]) if known else MISSING,
        probability(of_models),
    )


def _detectable(share: float) -> str:
    return points(share, signed=False) if share < 1 else "none"


def one_knob_changed(analysis: Analysis) -> Section | NotYet:
    """What other values of single knobs do to the winner, on the validation images: the controlled comparison."""
    found = analysis.get("ablations")
    if not found:
        return NotYet("nobody has asked for it: `convscout analyze RUN --ablate optimizer` does, for any knob")
    left_out = tuple(
        f"--ablate {name} has no row, since {found['of']} won: {why}." for name, why in found["left_out"].items()
    )
    if not found["variants"]:
        return NotYet(" ".join(left_out))
    rows = tuple(_variant(row, found["config"]) for row in found["variants"])
    differ = frozenset(n for n, row in enumerate(found["variants"]) if (row.get("comparison") or {}).get("found"))
    sentences = (
        f"Each row is {found['of']} retrained with one knob changed, everything else and the seeds equal, at its own "
        f"number of epochs; {count(len(differ), 'variant')} of {len(rows)} differ from it by more than chance.",
        f"On the validation images, by which {found['of']} was chosen: it has a small head start. p-values are "
        "corrected for the number of variants (Holm, 1979).",
        *left_out,
    )
    return Section(sentences, tables=(Table("", VARIANT_HEADER, rows, differ),))


def _variant(row: dict[str, Any], config: dict[str, Any]) -> tuple[str, ...]:
    accuracy, compared = row.get("val_accuracy"), row.get("comparison")
    known = compared is not None and compared["p_holm"] is not None
    failed = f"; {count(row['n_failed'], 'run')} failed" if row["n_failed"] else ""
    return (
        row["knob"],
        knob(row["value"]),
        knob(config[row["knob"]]),
        str(row.get("epochs", MISSING)),
        over_runs(accuracy) + failed if accuracy else f"no run ended as it should{failed}",
        points(compared["difference"]) if compared else MISSING,
        probability(compared["p_holm"]) if compared and known else MISSING,
        _detectable(compared["detectable"]) if compared and known else MISSING,
    )

"""The section of the report that compares the contenders on the test images, and says what cannot be said."""

from typing import Any

from analysis.page import Analysis, NotYet, Section, Table
from analysis.wording import MISSING, points, probability
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
    sentences = [
        f"{count(len(differ), 'comparison')} of {len(rows)} show a difference that other seeds and other test images "
        "would probably show too.",
        "Intervals and p-values are over seeds and test images together (a crossed bootstrap, widened to Student's t); "
        "p-values are corrected for the number of comparisons (Holm, 1979).",
        "What would have been found is the smallest difference that so many seeds and images show in 80 % of cases: "
        "a smaller one may be there, unseen.",
        "The last column is McNemar's exact test of two single models on the same images: it says nothing of other seeds.",
    ]
    return Section(tuple(sentences), tables=(Table("", HEADER, rows, differ),))


def _row(row: dict[str, Any], of_models: float) -> tuple[str, ...]:
    known = row["p_holm"] is not None
    return (
        row["first"],
        row["second"],
        points(row["difference"]),
        f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}" if known else MISSING,
        probability(row["p_holm"]) if known else MISSING,
        points(row["detectable"], signed=False) if known else MISSING,
        probability(of_models),
    )

"""How a search went, from its history to the numbers of the report: its trials, and what its rungs did."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from cluster.history import History
from cluster.record import Row, TrialRecord, ranked
from cluster.table import trial_row

Json = dict[str, Any]


def search_results(history: History, metric: str) -> Json:
    """Return the part of `analysis.json` on the search: its trials, best first, and what its rungs did.

    Each trial has what `trials.csv` says of it, its configuration, what ended it (`TrialRecord.ended_by`), and the
    seconds of search after which it ended, pauses left out. Ledgers did not always say why a configuration was drawn
    again; it was impossible then.
    """
    records = history.of_role("search")
    rows = [
        trial_row(record, metric)
        | {"config": record.config, "ended_by": record.ended_by, "ended_after": record.ended_after}
        for record in ranked(records, metric)
    ]
    return {
        "by_status": dict(Counter(row["status"] for row in rows)),
        "seconds": round(sum(record.seconds() for record in records), 1),
        "rejected": dict(Counter(row.get("cause", "impossible") for row in history.rejected)),
        "trials": rows,
        "rungs": rung_counts(records),
    }


def rung_counts(records: Iterable[TrialRecord]) -> list[Json]:
    """Return a row per architecture and rung, in this order: how many trials were judged, went on and were stopped.

    `sentence` is that of the last decision there, with the cutoff that held then.
    """
    found: dict[tuple[str, int], list[Json]] = {}
    for record in records:
        for row in record.decisions:
            if row.get("rung"):
                found.setdefault((record.architecture, row["epoch"]), []).append(row)
    return [
        {
            "architecture": architecture,
            "epoch": epoch,
            "judged": len(rows),
            "went_on": sum(not _stopped_there(row) for row in rows),
            "stopped": sum(map(_stopped_there, rows)),
            "sentence": max(rows, key=lambda row: row["seq"])["sentence"],
        }
        for (architecture, epoch), rows in sorted(found.items())
    ]


def _stopped_there(row: Row) -> bool:
    """Whether the rung stopped the trial; a time budget that ended with the same epoch did not."""
    return bool(row["decision"] == "stop" and row["cause"] == "rung")

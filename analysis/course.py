"""How a search went, from its history to the numbers of the report: trials, rungs, and ranges that were too narrow."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from analysis.edges import at_the_edge
from analysis.importance import FEWEST_TRIALS
from cluster.history import METRICS, History, TrialRecord, ranked
from cluster.table import trial_row
from spaces.space import Space

Json = dict[str, Any]


def search_results(history: History, metric: str, spaces: Mapping[str, Space]) -> Json:
    """Return the part of `analysis.json` on the search: its trials, best first, what its rungs did, and its edges.

    Each trial has what `trials.csv` says of it, its configuration, what ended it (`TrialRecord.ended_by`), and the
    seconds of search after which it ended, pauses left out.
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
        "rejected": dict(Counter(row["cause"] for row in history.rejected)),
        "trials": rows,
        "rungs": rung_counts(records),
        "edges": {name: edges(space, records, metric) for name, space in spaces.items()},
    }


def rung_counts(records: Iterable[TrialRecord]) -> list[Json]:
    """Return a row per architecture and rung, in this order: how many trials were judged, went on and were stopped.

    `sentence` is that of the last decision there, with the cutoff that held then.
    """
    found: dict[tuple[str, int], list[Json]] = {}
    for record in records:
        for row in record.decisions:
            if row["rung"]:
                found.setdefault((record.architecture, row["epoch"]), []).append(row)
    return [
        {
            "architecture": architecture,
            "epoch": epoch,
            "judged": len(rows),
            "went_on": sum(row["decision"] == "continue" for row in rows),
            "stopped": sum(row["decision"] == "stop" for row in rows),
            "sentence": max(rows, key=lambda row: row["seq"])["sentence"],
        }
        for (architecture, epoch), rows in sorted(found.items())
    ]


def edges(space: Space, records: Sequence[TrialRecord], metric: str) -> Json:
    """Return the knobs of an architecture whose best trials lie at the edge of their range (`at_the_edge`).

    Trials are compared at one epoch, for a trial that was stopped early must not look worse than one that had time:
    the last that 20 trials reached, or nine in ten where there are fewer; failed trials are left out.
    """
    trained = [each for each in records if each.architecture == space.architecture and each.epochs and not each.failed]
    if not trained:
        return {"epoch": None, "n_trials": 0, "found": []}
    lengths = sorted((len(record.epochs) for record in trained), reverse=True)
    epoch = lengths[min(FEWEST_TRIALS, math.ceil(0.9 * len(lengths))) - 1]
    scored = [
        (record.config, float(record.epochs[epoch - 1][metric]))
        for record in trained
        if len(record.epochs) >= epoch and record.epochs[epoch - 1].get(metric) is not None
    ]
    found = at_the_edge(space, scored, higher_is_better=METRICS[metric] > 0)
    rows = [asdict(edge) | {"sentence": edge.sentence} for edge in found]
    return {"epoch": epoch, "n_trials": len(scored), "found": rows}

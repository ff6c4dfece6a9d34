"""What went wrong on the way, and what it cost: one that hides its failures cannot be trusted with its successes."""

from collections import Counter
from typing import Any

from analysis.page import Analysis, NotYet, Section, Table
from cluster.history import History
from cluster.record import TrialRecord
from foundation import count

FAILED = ("diverged", "out_of_memory", "infeasible", "data_error", "lost")
WORDS = {
    "diverged": "diverged",
    "out_of_memory": "ran out of memory",
    "infeasible": "could not be trained",
    "data_error": "could not read the data",
    "lost": "were lost",
    "died": "died",
    "hung": "hung and were ended",
    "retired": "were retired after three bad outcomes in a row",
    "unfit": "were on hosts that could not get what trials need",
}
SHOWN = 50
NOT_KEPT = (
    "What frozen layers give could not be kept: a host had no room for it in a quarter of its free disk, or its image "
    "cache cannot be written. In {} they computed it anew each epoch, and augmented views were new each time."
)


def recorded_troubles(history: History) -> dict[str, Any]:
    """Return the part of `analysis.json` that says what went wrong, over searches, retraining and final training."""
    records = [record for record in history.trials.values() if record.role != "reproduce"]
    return {
        "failed": [
            {"trial": record.trial, "role": record.role, "status": record.status, "error": record.error}
            for record in records
            if record.failed
        ],
        "lost": [
            {"trial": row["trial"], "attempt": row["attempt"], "cause": row["cause"], "error": row["error"]}
            for record in records
            for row in record.lost
        ],
        "slot_grown": [row["why"] for row in history.growths],
        "features_not_kept": [record.trial for record in records if _not_kept(record)],
        "rescued": [record.trial for record in records if record.reopened],
        "interruptions": len(history.interruptions),
        "changed": [sentence for row in history.resumes for sentence in row["changed"]],
    }


def troubles(analysis: Analysis) -> Section | NotYet:
    """Failed trials, lost processes, interruptions and changed versions; one sentence where there was none of it."""
    found = analysis.get("troubles")
    if found is None:
        return NotYet("it was not recorded: this analysis was written by an earlier version")
    sentences = [
        *_by_kind(found["failed"], "status", "trial"),
        *_by_kind(found["lost"], "cause", "worker process", "; their trials went on from their last checkpoints"),
    ]
    if grown := found.get("slot_grown"):  # earlier versions did not record it
        times = count(len(grown), "time")
        sentences.append(f"Memory was short for trials side by side {times}, so fewer ran at once: {'; '.join(grown)}.")
    if not_kept := found.get("features_not_kept"):
        sentences.append(NOT_KEPT.format(count(len(not_kept), "trial")))
    if found["rescued"]:
        which = ", ".join(map(str, found["rescued"]))
        sentences.append(f"Rescued, so trained to the end although a rung had stopped them: trials {which}.")
    if found["interruptions"]:
        sentences.append(f"It was interrupted {count(found['interruptions'], 'time')} and went on from its ledger.")
    if found["changed"]:
        sentences.append(f"Versions changed while it ran: {'; '.join(found['changed'])}.")
    if not sentences:
        return Section(("Nothing went wrong: no trial failed, no process was lost, nothing was interrupted.",))
    rows = [(str(row["trial"]), row["status"], row["error"] or "") for row in found["failed"]]
    rows += [
        (str(row["trial"]), f"attempt {row['attempt']}: {row['cause'].replace('_', ' ')}", row["error"])
        for row in found["lost"]
    ]
    if len(rows) > SHOWN:
        sentences.append(f"The first {SHOWN} of {len(rows)}; the ledger has all of them.")
    table = Table("", ("trial", "what", "why"), tuple(rows[:SHOWN]))
    return Section(tuple(sentences), tables=(table,) if rows else ())


def _not_kept(record: TrialRecord) -> bool:
    return any(row.get("features_not_kept") for row in record.epochs)


def _by_kind(rows: list[dict[str, Any]], key: str, noun: str, rest: str = "") -> list[str]:
    kinds = Counter(row[key] for row in rows)
    if not kinds:
        return []
    parts = [f"{number} {WORDS[kind]}" for kind, number in kinds.items()]
    return [f"Of {count(sum(kinds.values()), noun)} that failed, {', '.join(parts)}{rest}."]

"""What a search promises whatever was killed, checked on its ledger."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from cluster.history import History
from cluster.ledger import LEDGER, read_history, read_rows
from cluster.record import TrialRecord
from cluster.storage import read_experiment
from search.request import Request, decoded_before, reopen
from search.run import Planner
from search.spec import checked_spec

SLACK_SECONDS = 1.0  # of writing a checkpoint on a busy machine


def request_of(folder: Path) -> Request:
    """Return the request of an experiment, as a resume would."""
    experiment = read_experiment(folder)
    spec = checked_spec(experiment["spec"])
    return reopen(spec, experiment, decoded_before(spec, experiment, None, print))


def broken_promises(folder: Path, checkpoint_every: float | None = None) -> list[str]:
    """Return a sentence for each promise that a finished search does not keep."""
    planner = Planner(request_of(folder))
    every = planner.spec.checkpoint_every if checkpoint_every is None else checkpoint_every
    found: list[str] = []
    history = History()
    ended: Counter[int] = Counter()
    for row in read_rows(folder / LEDGER):
        record = history.trials.get(row.get("trial", -1))
        if record:
            found += _broken_by(row, record, history, planner, ended[record.trial], every)
            ended[record.trial] += row["event"] == "ended"
        history.apply(row)
    for record in history.of_role("search"):
        if ended[record.trial] != 1 + record.reopened:
            found.append(f"trial {record.trial} has {ended[record.trial]} ends and {1 + record.reopened} openings")
        if [row["epoch"] for row in record.epochs] != list(range(1, len(record.epochs) + 1)):
            found.append(f"trial {record.trial} has the epochs {[row['epoch'] for row in record.epochs]}")
        found += _missing_decisions(record, history, planner)
    if len(history.of_role("search")) != history.trials_wanted:
        found.append(f"{len(history.of_role('search'))} trials of {history.trials_wanted}")
    return found


def _broken_by(
    row: dict[str, Any], record: TrialRecord, history: History, planner: Planner, ends: int, every: float
) -> list[str]:
    found = []
    if not record.live and row["event"] in ("started", "epoch", "decision", "ended"):
        found.append(f"row {row['seq']}: {row['event']} of trial {record.trial}, which has ended")
    if row["event"] == "decision" and row["cause"] != "budget":
        again = planner.decide(history, record, record.epochs[row["epoch"] - 1])
        verdict = ("stop" if again.stop else "continue", again.sentence) if again else None
        if verdict != (row["decision"], row["sentence"]):
            found.append(f"row {row['seq']}: {row['sentence']!r} computed again is {verdict}")
    if row["event"] == "started" and record.role == "search":
        begins_after = int(row["start_from"].rpartition("e")[2]) if row["start_from"] else 0
        repeated = [epoch["seconds"] for epoch in record.epochs[begins_after:]]
        allowed = max([every, *(epoch["seconds"] for epoch in record.epochs)]) + SLACK_SECONDS
        if sum(repeated) > allowed:
            found.append(f"row {row['seq']}: trial {record.trial} repeats {sum(repeated):.1f} of {allowed:.1f} s")
    return found


def _missing_decisions(record: TrialRecord, history: History, planner: Planner) -> list[str]:
    """Return the epochs of a trial that were to be judged and were not; rescued trials are judged no more."""
    if record.reopened:
        return []
    kept = {row["epoch"] for row in record.decisions}
    judged = {row["epoch"]: planner.decide(history, record, row) for row in record.epochs}
    missing = [epoch for epoch, decision in judged.items() if decision and epoch not in kept]
    return [f"trial {record.trial}: no decision after epoch {epoch}" for epoch in missing]


def random_configurations(folder: Path) -> list[dict[str, Any]]:
    """Return the configurations that a random search in which nothing is killed proposes, in order."""
    planner, history = Planner(request_of(folder)), History()
    history.trials_wanted = read_history(folder).trials_wanted  # as extended
    found = []
    while proposal := planner.next_work(history):
        found.append(json.loads(json.dumps(proposal.config)))
        fields = {
            name: getattr(proposal, name) for name in ("role", "architecture", "config", "seed", "work", "method")
        }
        position = {"seq": history.last_seq + 1, "time": 0.0, "incarnation": 1}
        history.apply({**position, "event": "proposed", "trial": history.next_trial(), **fields})
    return found

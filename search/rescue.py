"""Rescue: a trial that was stopped, or failed for no reason of its own, is trained to the end after all."""

from dataclasses import replace
from pathlib import Path

from cluster.ledger import Ledger
from cluster.lock import Lock
from cluster.naming import run_argument
from cluster.session import Tell, note_resumed
from cluster.storage import read_experiment
from foundation import RequestError
from search.cost import seconds_left
from search.request import OnDecoded, decoded_before, keep_asked, reopen
from search.run import Outcome, Planner, train
from search.spec import checked_spec

RESCUED = ("stopped", "lost", "out_of_memory", "data_error")
WHY_NOT = {
    "completed": "it has run to its end already",
    "diverged": "its loss is no longer a number, and would not be again",
    "infeasible": "its model cannot be trained on this data",
}


def rescue(
    folder: Path,
    trial: int,
    *,
    lock: Lock | None = None,
    address: str | None = None,
    quiet: bool = False,
    on_decoded: OnDecoded | None = None,
    tell: Tell = lambda _: None,
) -> Outcome:
    """Train a trial of a search from its last checkpoint, or from the start, to the full number of epochs.

    It gets one more `ended` row and its place in the leaderboard; no rung stops it, and no time budget. Other trials
    that an interrupted search left unfinished go on beside it, within theirs. It runs on the cluster of the last
    command, or at `address`. Raises `RequestError` when there is nothing to rescue.
    """
    with Ledger(folder, lock) as ledger:
        searched = {record.trial: record for record in ledger.history.of_role("search")}
        record = searched.get(trial)
        if record is None:
            known = f"0 to {max(searched)}" if searched else "none"
            raise RequestError(f"trial {trial} is no trial of the search {folder.name}: it has {known}")
        if record.live and not record.reopened:
            go_on = f"convscout resume {run_argument(folder)}"
            raise RequestError(f"trial {trial} has not ended: `{go_on}` goes on with it")
        if not record.live and record.status not in RESCUED:
            raise RequestError(f"trial {trial} is {record.status}: {WHY_NOT[str(record.status)]}")
        experiment = read_experiment(folder)
        spec = checked_spec(experiment["spec"] | ({"address": address} if address else {}))
        request = reopen(spec, experiment, decoded_before(spec, experiment, on_decoded, tell))
        keep_asked(folder, experiment, request)
        note_resumed(ledger, experiment, tell)
        if not record.live:
            ledger.append("reopened", trial=trial, why="rescue")
        left = seconds_left(spec, ledger.history)
        return replace(train(Planner(request), ledger, lambda _: None, left, quiet, tell), rescued=True)

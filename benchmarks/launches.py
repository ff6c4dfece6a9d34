"""A search that trains nothing: trials through the real dispatcher, ledger, launcher and TensorBoard events."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plans import planner

from cluster.connect import connect
from cluster.dispatch import Dispatcher
from cluster.history import History
from cluster.launch import launch
from cluster.ledger import Ledger
from cluster.resources import Place, Slot, hosts_of
from cluster.storage import TRIALS
from cluster.watch import watchers


def run(
    trainable: type,
    method: str,
    trials: int,
    epochs: int,
    slots: int,
    parameters: dict[str, Any],
    folder: Path | None = None,
    knobs: Mapping[str, Any] | None = None,
) -> History:
    """Run so many trials of a search over the plain CNN, planned as any other, and return what the ledger says.

    Ray is connected first. `folder` is where the experiment is to be kept, `knobs` what is changed in its space.
    """
    place = Place(Slot(1, 0.0), hosts_of(connect()), max_concurrent=slots)
    plans = planner(trials, epochs, method, knobs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder or Path(scratch)
        (folder / TRIALS).mkdir()
        with Ledger(folder) as ledger:
            ledger.append("experiment", name="benchmark", trials=trials)
            rows = {name: space.rows() for name, space in plans.request.spaces.items()}
            experiment = {"name": "benchmark", "spec": {"metric": "val_accuracy"}, "spaces": rows}
            watching = watchers(folder, experiment, ("search",), slots, what="search", quiet=True)
            next_work, decide = plans.next_work, plans.decide
            dispatcher = Dispatcher(ledger, ("search",), next_work, decide, watching, in_order=slots == 1)
            launch(trainable, dispatcher, place, {"folder": str(folder), **parameters})
            return ledger.history


def started_row(attempt: int) -> dict[str, Any]:
    """Return the report of a worker that begins a trial."""
    where = {"host": "here", "node": "here", "pid": os.getpid()}
    return {"kind": "started", "attempt": attempt, **where, "epochs": []}


def epoch_row(epoch: int, seconds: float) -> dict[str, Any]:
    """Return an epoch's report without any training."""
    result: dict[str, Any] = dict.fromkeys(("train_loss", "val_loss"), 1.0)
    result |= dict.fromkeys(("train_accuracy", "val_accuracy", "val_balanced_accuracy", "val_macro_f1"), 0.5)
    return result | {
        "epoch": epoch,
        "learning_rate": 0.1,
        "seconds": seconds,
        "images_per_second": 1.0,
        "peak_memory_mb": 1.0,
    }


def handed_out(config: dict[str, Any]) -> dict[str, Any]:
    """Return what the dispatcher handed to a worker."""
    given: dict[str, Any] = json.loads(config["handed_out"])
    return given

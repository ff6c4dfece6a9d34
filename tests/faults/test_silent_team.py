"""Processes of a team that are stopped in the middle: their team is ended within a stated time, and another begins."""

import json
import os
from pathlib import Path

import pytest
from ray_script import said_by

SCRIPT = """
import json, os, signal, sys, threading
from pathlib import Path
from cluster import launch_together, silence
from cluster.connect import connect, disconnect
from cluster.dispatch import Dispatcher
from cluster.ledger import Ledger
from cluster.proposal import Proposal
from cluster.resources import Place, Slot, hosts_of

silence.SILENT_SECONDS = 40.0


class Desk(launch_together.Desk):
    def __init__(self):
        super().__init__()
        Path(os.environ["DESK"]).write_text(str(os.getpid()))


def train(rank, size, take, report, parameters):
    # In their first attempts, the second worker of trial 0 is stopped, and of trial 1 the desk.
    number = 0
    while (given := take(number)) is not None:
        given, number = json.loads(given), number + 1
        if rank == 0:
            report(json.dumps({"kind": "started", "attempt": given["attempt"], "host": "here", "node": "here",
                               "pid": os.getpid(), "epochs": []}))
        if given["attempt"] == 1 and rank == 1:
            os.kill(int(Path(os.environ["DESK"]).read_text()) if given["trial"] else os.getpid(), signal.SIGSTOP)
        if given["attempt"] == 1:
            threading.Event().wait()
        row = dict.fromkeys(("train_loss", "val_loss", "val_accuracy", "seconds"), 0.5) | {"epoch": 1}
        if rank == 0:
            report(json.dumps({"kind": "epoch", "epoch": row, "attempt": given["attempt"]}))


def next_work(history):
    number, work = history.next_trial(), {"epochs": 1, "schedule_epochs": 1, "workers": 2}
    return None if number >= 2 else Proposal("final", "cnn", {}, number, work, "analysis")


launch_together.Desk = Desk
folder = Path(sys.argv[1])
ray = connect()
place = Place(Slot(1, 0.0), hosts_of(ray))
with Ledger(folder) as ledger:
    dispatcher = Dispatcher(ledger, ("final",), next_work, lambda *_: None, in_order=True, workers=2)
    done = launch_together.launch_together(train, dispatcher, place, 2, {})
disconnect()
print(json.dumps({"done": done}))
"""
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores"),
    pytest.mark.timeout(920),
]


def test_a_team_with_a_stopped_worker_or_desk_is_ended_and_its_trial_begins_again(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    (folder / "trials").mkdir(parents=True)
    desk = str(tmp_path / "desk")
    assert said_by(SCRIPT, tmp_path, str(folder), seconds=900, DESK=desk, RAY_TMPDIR="/tmp") == {"done": True}
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    started = [(row["trial"], row["attempt"]) for row in rows if row["event"] == "started"]
    assert started == [(0, 1), (0, 2), (1, 1), (1, 2)]
    lost = [
        (row["trial"], row["cause"], row["error"].rpartition(" has not answered for ")[0])
        for row in rows
        if row["event"] == "lost"
    ]
    assert lost == [
        (0, "hung", "process 2 of 2 that train it together"),
        (1, "hung", "the process that leads its workers"),
    ]
    assert [row["status"] for row in rows if row["event"] == "ended"] == ["completed", "completed"]

"""Processes of a team that are stopped in the middle: their team is ended within a stated time, and another begins."""

import json
import os
from pathlib import Path

import pytest
from processes import Command
from promises import broken_promises
from ray_script import said_by

from cluster.ledger import read_history

SCRIPT = """
import json, os, signal, sys, threading, time
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
    # In the first attempt the second worker is stopped, in the second the desk.
    attempt, ledger = json.loads(take(0))["attempt"], Path(os.environ["LEDGER"])
    if rank == 0:
        report(json.dumps({"kind": "started", "attempt": attempt, "host": "here", "node": "here", "pid": os.getpid(),
                           "epochs": []}))
    else:
        while sum(json.loads(row)["event"] == "started" for row in ledger.read_text().splitlines()) < attempt:
            time.sleep(0.05)
        os.kill(os.getpid() if attempt == 1 else int(Path(os.environ["DESK"]).read_text()), signal.SIGSTOP)
    threading.Event().wait()


def next_work(history):
    work = {"epochs": 1, "schedule_epochs": 1, "workers": 2}
    return None if history.trials else Proposal("final", "cnn", {}, 0, work, "analysis")


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
    pytest.mark.timeout(2400),
]


def test_a_team_with_a_stopped_worker_or_desk_is_ended_and_its_trial_begins_again_once(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    (folder / "trials").mkdir(parents=True)
    desk = str(tmp_path / "desk")
    there = {"DESK": desk, "LEDGER": str(folder / "ledger.jsonl"), "RAY_TMPDIR": "/tmp"}
    assert said_by(SCRIPT, tmp_path, str(folder), seconds=900, **there) == {"done": True}
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert [row["attempt"] for row in rows if row["event"] == "started"] == [1, 2]
    lost = [row for row in rows if row["event"] == "lost"]
    assert [(row["cause"], row["error"].partition(" has not answered for ")[0]) for row in lost] == [
        ("hung", "process 2 of 2 that train it together"),
        ("hung", "the process that leads its workers"),
    ]
    [ended] = [row for row in rows if row["event"] == "ended"]
    assert ended["status"] == "lost"
    assert ended["error"].startswith("2 attempts failed, the last one with: the process that leads its workers")


def test_an_analysis_with_a_stopped_worker_in_its_team_trains_again_and_comes_to_its_end(
    storage: Path, asked, plant
) -> None:
    with Command(*asked("--method", "random", trials=2, epochs=3)) as search:
        assert search.end(600) == 0, search.said
    stop = plant("trial.epoch:stop:8")  # after two retrainings of three epochs, in the first of two workers together
    analyze = ("analyze", str(storage / "x"), "--finalists", "1", "--seeds", "1", "--retrain-workers", "2")
    with Command(*analyze, environment=stop) as analysis:
        assert analysis.end(1600) == 0, analysis.said
        assert analysis.leaves_nothing()
    assert "Traceback" not in analysis.said
    history = read_history(storage / "x")
    finals = history.of_role("final")
    assert {(record.workers, record.status) for record in finals} == {(2, "completed")}
    for record in finals:
        assert [row["epoch"] for row in record.epochs] == list(range(1, record.work["epochs"] + 1))
    [lost] = [row for record in history.trials.values() for row in record.lost]
    assert (lost["trial"], lost["cause"], lost["charged"]) == (finals[0].trial, "hung", True)
    assert " of 2 that train it together has not answered for 2 min" in lost["error"]
    assert broken_promises(storage / "x") == []

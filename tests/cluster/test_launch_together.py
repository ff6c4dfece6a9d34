"""Trials that workers train together, with Ray but without torch; in a process of its own: Ray must not be here."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from ray_script import said_by

HOUSE = Path(__file__).parents[2]
SCRIPT = """
import json, os, signal, sys, threading, time
from pathlib import Path
from cluster.connect import connect, disconnect
from cluster.dispatch import Dispatcher
from cluster.launch_together import launch_together
from cluster.ledger import Ledger
from cluster.proposal import Proposal
from cluster.resources import Place, Slot, hosts_of

TRIALS, EPOCHS = 3, 2


def train(rank, size, take, report, parameters):
    # Trial 0 goes well; the second worker of trial 1 dies in its first attempt; trial 2 is interrupted.
    number = 0
    while (given := take(number)) is not None:
        given, number = json.loads(given), number + 1
        attempt = given["attempt"]
        if rank == 0:
            report(json.dumps({"kind": "started", "attempt": attempt, "host": "here", "pid": os.getpid(), "epochs": [],
                               "team": size, "number": number, "given": parameters["given"]}))
        if given["trial"] == 1 and attempt == 1:
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()
        if given["trial"] == 2:
            Path(parameters["folder"], f"begun-{rank}").touch()
            threading.Event().wait()
        for epoch in range(1, EPOCHS + 1):
            row = dict.fromkeys(("train_loss", "val_loss", "val_accuracy", "seconds"), 0.5) | {"epoch": epoch}
            if rank == 0:
                report(json.dumps({"kind": "epoch", "epoch": row, "attempt": attempt}))


def next_work(history):
    number, work = history.next_trial(), {"epochs": EPOCHS, "schedule_epochs": EPOCHS, "workers": 2}
    return None if number >= TRIALS else Proposal("final", "cnn", {}, number, work, "analysis")


def interrupt(folder):
    while not all((folder / f"begun-{rank}").exists() for rank in range(2)):
        threading.Event().wait(0.05)
    os.kill(os.getpid(), signal.SIGINT)


folder = Path(sys.argv[1])
ray = connect()
place = Place(Slot(1, 0.0), hosts_of(ray))
place.check_team(2)
threading.Thread(target=interrupt, args=(folder,), daemon=True).start()
with Ledger(folder / "experiment") as ledger:
    dispatcher = Dispatcher(ledger, ("final",), next_work, lambda *_: None, in_order=True, workers=2)
    done = launch_together(train, dispatcher, place, 2, {"given": "to all", "folder": str(folder)})
end = time.monotonic() + 60
while (free := ray.available_resources().get("CPU", 0.0)) < 2 and time.monotonic() < end:
    time.sleep(0.1)
disconnect()
print(json.dumps({"done": done, "free": free >= 2}))
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores")
@pytest.mark.timeout(620)
def test_teams_train_trial_after_trial_and_one_that_lost_a_worker_begins_again(tmp_path: Path) -> None:
    (tmp_path / "experiment" / "trials").mkdir(parents=True)
    found = said_by(SCRIPT, tmp_path, str(tmp_path), seconds=600, TMPDIR=str(tmp_path), RAY_TMPDIR="/tmp")
    assert found == {"done": False, "free": True}  # as if the team had ended by itself
    rows = [json.loads(line) for line in (tmp_path / "experiment" / "ledger.jsonl").read_text().splitlines()]
    started = [row for row in rows if row["event"] == "started" and row["trial"] < 2]
    assert [(row["trial"], row["attempt"]) for row in started] == [(0, 1), (1, 1), (1, 2)]
    assert [row["number"] for row in started] == [1, 2, 1]  # a team goes on to the next trial; a new one begins
    assert {(row["team"], row["given"]) for row in started} == {(2, "to all")}
    [lost] = [row for row in rows if row["event"] == "lost"]
    assert (lost["trial"], lost["attempt"], lost["cause"], lost["charged"]) == (1, 1, "died", True)
    assert lost["error"].startswith("the worker process died (")
    epochs = Counter((row["trial"], row["attempt"]) for row in rows if row["event"] == "epoch")
    assert epochs == {(0, 1): 2, (1, 2): 2}
    assert [(row["trial"], row["status"], row["error"]) for row in rows if row["event"] == "ended"] == [
        (0, "completed", None),
        (1, "completed", None),
    ]
    assert rows[-1]["event"] == "interrupted"
    assert not list(tmp_path.glob("convscout-ray-*"))  # nothing of Ray's is kept

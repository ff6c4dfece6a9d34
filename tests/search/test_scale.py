"""A search on a simulated cluster, through Ray's own controller: in a process of its own, as all that imports Ray."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.history import History
from cluster.ledger import LEDGER, read_rows
from cluster.record import TrialRecord

HOUSE = Path(__file__).parents[2]
TRIALS, HOSTS, SLOTS, EPOCHS = 200, 4, 4, 10
sys.path.insert(0, str(HOUSE / "benchmarks"))
from parts import MARK_TRIALS, quarters  # noqa: E402

pytestmark = pytest.mark.timeout(300)  # seconds, on a machine that is busy with other things


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a search, and what the simulation says of it."""
    folder = tmp_path_factory.mktemp("scale") / "experiment"
    command = [sys.executable, str(HOUSE / "benchmarks" / "scale.py"), "--once", str(folder), "--method", "asha"]
    command += [f"--trials={TRIALS}", f"--hosts={HOSTS}", f"--slots={SLOTS}", f"--epochs={EPOCHS}"]
    command += ["--epoch-seconds=3", "--died=0.01"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=280)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return folder, found


def replay(folder: Path) -> History:
    history = History()
    for row in read_rows(folder / LEDGER):
        history.apply(row)
    return history


def test_all_trials_end_once_and_no_slot_is_taken_twice(searched: tuple[Path, dict[str, Any]]) -> None:
    folder, found = searched
    rows = list(read_rows(folder / LEDGER))
    ended = Counter(row["trial"] for row in rows if row["event"] == "ended")
    assert ended == Counter(range(TRIALS))
    running: set[int] = set()
    most = 0
    for row in rows:
        if row["event"] == "started":
            running.add(row["trial"])
        elif row["event"] in ("ended", "lost"):
            running.discard(row["trial"])
        most = max(most, len(running))
    assert most == HOSTS * SLOTS
    assert found["most_workers"] == HOSTS * SLOTS
    written = sum(row["event"] in ("started", "epoch") for row in rows)
    lost = sum(row["event"] == "lost" for row in rows)
    assert written <= found["reports"] <= written + EPOCHS * lost  # what a new attempt repeats is not written again


def test_what_died_was_handed_out_again(searched: tuple[Path, dict[str, Any]]) -> None:
    history = replay(searched[0])
    lost = [record for record in history.trials.values() if record.lost]
    assert lost
    for record in lost:
        assert [row["cause"] for row in record.lost] == ["died"] * len(record.lost)
        assert record.attempts == len(record.lost) + (record.status != "lost")
        assert [row["epoch"] for row in record.epochs] == list(range(1, len(record.epochs) + 1))


def test_every_decision_is_that_of_the_rows_before_it(searched: tuple[Path, dict[str, Any]]) -> None:
    from scale import planner

    plans, history, whole = planner(TRIALS, EPOCHS, "asha"), History(), replay(searched[0])
    decided = 0
    for row in read_rows(searched[0] / LEDGER):
        if row["event"] == "decision":
            record = history.trials[row["trial"]]
            epoch = record.epochs[row["epoch"] - 1]
            for known in (history, whole):  # what came later does not count
                again = plans.decide(known, known.trials[record.trial], epoch)
                assert again is not None
                assert (again.stop, again.sentence) == (row["decision"] == "stop", row["sentence"])
            assert (row["decision"] == "stop") == stops(history, record, epoch)
            decided += 1
        history.apply(row)
    assert decided == sum(len(record.decisions) for record in whole.trials.values()) > TRIALS


def stops(history: History, record: TrialRecord, epoch: dict[str, Any]) -> bool:
    """Return whether a rung stops a trial, by going through all the others."""
    rows = [other.epochs[epoch["epoch"] - 1 : epoch["epoch"]] for other in history.trials.values()]
    before = [row["val_accuracy"] for each in rows for row in each if row["seq"] < epoch["seq"]]
    return bool(before) and epoch["val_accuracy"] < float(np.percentile(before, 200 / 3))


def test_every_trial_is_what_the_rows_before_it_propose(searched: tuple[Path, dict[str, Any]]) -> None:
    from scale import planner

    plans, history = planner(TRIALS, EPOCHS, "asha"), History()
    again = 0
    for row in read_rows(searched[0] / LEDGER):
        if row["event"] == "proposed" and row["draw"] == 0 and row["trial"] % 20 == 0:
            proposal = plans.next_work(history)
            assert proposal is not None
            assert json.loads(json.dumps([proposal.config, proposal.seed])) == [row["config"], row["seed"]]
            again += 1
        history.apply(row)
    assert again > TRIALS / 30


def test_a_slot_waits_for_its_next_trial_on_the_clock_of_the_simulation(searched: tuple[Path, dict[str, Any]]) -> None:
    found = searched[1]
    assert len(found["waits"]) > TRIALS - HOSTS * SLOTS - 3 * found["workers"]
    assert all(0 < own <= wait < math.inf for _, wait, own in found["waits"])
    assert found["busy_seconds"] < found["seconds"]
    assert found["event_files"] == 3 * TRIALS + 1 + extra_files(searched[0])


def test_where_the_drivers_time_goes_adds_up(searched: tuple[Path, dict[str, Any]]) -> None:
    found = searched[1]
    assert {"proposals", "the ledger", "decisions", "waiting for the disk"} <= set(found["parts"])
    assert all(0 < seconds < found["busy_seconds"] for seconds in found["parts"].values())
    assert sum(found["parts"].values()) < found["busy_seconds"]
    assert 0 < sum(found["garbage_seconds"]) < found["busy_seconds"]
    begun, reports, worked, waited = zip(*found["marks"], strict=True)
    assert begun[-1] > TRIALS - MARK_TRIALS - 1
    for figures in (begun, reports, worked, waited):
        assert list(figures) == sorted(figures)
    assert worked[-1] + waited[-1] <= found["busy_seconds"]


def test_quarters_are_of_trials_and_leave_the_disk_out() -> None:
    marks = [(10, 20, 1.0, 5.0), (20, 50, 1.5, 5.0), (30, 60, 2.5, 5.0), (40, 70, 4.5, 9.0)]
    assert list(quarters(marks)) == [(20.0, 100.0), (60.0, 50.0), (10.0, 100.0), (5.0, 200.0)]
    assert list(quarters(marks[:2])) == [(20.0, 100.0), (60.0, 50.0)]  # too few for four
    assert list(quarters([])) == []


def extra_files(folder: Path) -> int:
    """Return how often the columns of the HParams tab were written again, beyond the first time."""
    return len(list((folder / "trials").glob("events*"))) - 1

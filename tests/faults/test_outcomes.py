"""Memory, hangs, broken models and vanished data cost one trial at most, and are seen where people look."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import HOUSE, Command, rows
from promises import broken_promises

from cluster.ledger import read_history
from trainables.cache import prepare

pytestmark = [pytest.mark.faults, pytest.mark.timeout(200)]

OWN_MODEL = """
import torch
from spaces import Space, Choice
SPACE = {"behaviour": Choice(("sound", "crash", "nan", "hungry"))}
BASELINE = {"behaviour": "sound"}
"""


def outcomes(folder: Path) -> list[tuple[int, str | None, int]]:
    history = read_history(folder)
    return [(record.trial, record.status, len(record.lost)) for record in history.trials.values()]


def shown(folder: Path) -> list[dict[str, object]]:
    command = [sys.executable, str(HOUSE / "convscout.py"), "show", str(folder), "--json"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return sorted(rows, key=lambda row: row["trial"])


def test_memory_that_does_not_suffice_is_tried_in_halves_once(storage: Path, asked, plant) -> None:
    faults = plant("training.before_validation:memory:4")
    with Command(*asked("--max-concurrent", "1", trials=2), environment=faults) as running:
        assert running.end() == 0, running.said
    assert outcomes(storage / "x") == [(0, "completed", 1), (1, "completed", 0)]
    lost = next(row for row in rows(storage / "x") if row["event"] == "lost")
    assert (lost["cause"], lost["trial"]) == ("out_of_memory", 0)
    divisors = [row["micro_batch_divisor"] for row in rows(storage / "x") if row["event"] == "started"]
    assert divisors == [1, 2, 1]
    assert broken_promises(storage / "x") == []


def test_memory_that_never_suffices_is_an_outcome_of_that_trial_alone(storage: Path, asked, plant) -> None:
    faults = plant("training.before_validation:memory:4", "training.before_validation:memory:5")
    with Command(*asked("--max-concurrent", "1", "--checkpoint-every", "10m"), environment=faults) as running:
        assert running.end() == 0, running.said
    assert outcomes(storage / "x")[0] == (0, "out_of_memory", 2)
    assert {status for _, status, _ in outcomes(storage / "x")[1:]} <= {"completed", "stopped"}
    row = shown(storage / "x")[0]
    assert row["status"] == "out_of_memory"
    assert "2 attempts failed" in str(row["error"])


def test_a_worker_that_hangs_is_ended_and_its_trial_goes_on(storage: Path, asked, plant) -> None:
    faults = plant("training.before_validation:hang:5")
    with Command(*asked("--epoch-timeout", "3s", trials=2), environment=faults) as running:
        assert running.end(120) == 0, running.said
    lost = [row for row in rows(storage / "x") if row["event"] == "lost"]
    assert [(row["cause"], row["charged"]) for row in lost] == [("hung", True)]
    assert "no end after" in lost[0]["error"]
    assert {status for _, status, _ in outcomes(storage / "x")} <= {"completed", "stopped"}
    assert broken_promises(storage / "x") == []


def test_ctrl_c_does_not_wait_for_a_worker_that_hangs(storage: Path, asked, plant) -> None:
    import signal

    with Command(*asked(), environment=plant("training.before_validation:hang:2")) as running:
        running.until_row(storage / "x", event="epoch", epoch=1)
        running.kill("parent", signal.SIGINT)
        assert running.end(30) == 130
        assert running.leaves_nothing()
    assert "convscout resume" in running.said


def test_a_broken_device_costs_no_trial_that_follows(storage: Path, asked, plant) -> None:
    faults = plant("trial.begin:error:2", "trial.begin:error:3", "trial.begin:error:4")
    with Command(*asked("--max-concurrent", "1", trials=5), environment=faults) as running:
        assert running.end() == 0, running.said
    statuses = [status for _, status, _ in outcomes(storage / "x")]
    assert statuses[1:4] == ["infeasible"] * 3
    assert statuses[4] in ("completed", "stopped")
    retired = [row for row in rows(storage / "x") if row["event"] == "lost"]
    assert [(row["cause"], row["charged"], row["trial"]) for row in retired] == [("retired", False, 4)]


def test_data_that_vanishes_ends_the_search_before_it_eats_all_trials(
    storage: Path, asked, striped: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    environment = {"CONVSCOUT_CACHE": str(cache)}
    with Command(*asked("--time-budget", "1s", trials=8), environment=environment) as running:
        assert running.end() == 0, running.said
    shutil.move(str(cache), str(tmp_path / "gone"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONVSCOUT_CACHE", str(cache))
        folder = prepare(str(striped)).folder
    (folder / "images.npy").write_bytes(b"")  # only the workers read it
    with Command("resume", str(storage / "x"), "--time-budget", "1h", environment=environment) as resumed:
        code = resumed.end()
    assert code in (0, 1)
    assert "Traceback" not in resumed.said
    assert os.path.exists(storage / "x" / "ledger.jsonl")

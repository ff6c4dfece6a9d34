"""Memory, hangs, broken models and vanished data cost one trial at most, and are seen where people look."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import HOUSE, Command, rows
from promises import broken_promises

from cluster.ledger import read_history

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]

# A model that takes as many gigabytes as its configuration says; on the meta device, where shapes are checked, none.
HUNGRY = """
import torch
from torch import nn
from spaces import Between, Choice, Knob

SPACE = {"gigabytes": Knob(Choice((0, 8)), "GB", "too much, or nothing", Between(0, 64, whole=True))}
BASELINE = {"gigabytes": 0}


class Hungry(nn.Module):
    def __init__(self, inputs, classes, gigabytes):
        super().__init__()
        self.flat, self.dense = nn.Flatten(), nn.Linear(inputs, classes)
        self.eaten = [torch.ones(gigabytes * 2**28)]

    def forward(self, images):
        return self.dense(self.flat(images))


def build(image_shape, classes, *, gigabytes):
    channels, height, width = image_shape
    return Hungry(channels * height * width, classes, gigabytes)
"""


def outcomes(folder: Path) -> list[tuple[int, str | None, int]]:
    history = read_history(folder)
    return [(record.trial, record.status, len(record.lost)) for record in history.trials.values()]


def shown(folder: Path) -> list[dict[str, object]]:
    command = [sys.executable, str(HOUSE / "convscout.py"), "show", str(folder), "--json"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return sorted(rows, key=lambda row: row["trial"])


def test_memory_that_does_not_suffice_is_tried_in_halves_once(storage: Path, asked, plant) -> None:
    faults = plant("trial.epoch:memory:4")
    with Command(*asked("--max-concurrent", "1", trials=2), environment=faults) as running:
        assert running.end() == 0, running.said
    assert outcomes(storage / "x") == [(0, "completed", 1), (1, "completed", 0)]
    lost = next(row for row in rows(storage / "x") if row["event"] == "lost")
    assert (lost["cause"], lost["trial"]) == ("out_of_memory", 0)
    divisors = [row["micro_batch_divisor"] for row in rows(storage / "x") if row["event"] == "started"]
    assert divisors == [1, 2, 1]
    assert broken_promises(storage / "x") == []


def test_memory_that_does_not_suffice_for_two_makes_the_slot_larger_and_charges_no_trial(
    storage: Path, asked, plant
) -> None:
    faults = plant("trial.epoch:memory:9")
    with Command(*asked("--method", "random", "--cpus-per-trial", "1"), environment=faults) as running:
        assert running.end() == 0, running.said
    assert {status for _, status, _ in outcomes(storage / "x")} == {"completed"}
    (lost,) = (row for row in rows(storage / "x") if row["event"] == "lost")
    grown = [row for row in rows(storage / "x") if row["event"] == "slot_grown"]
    assert (lost["charged"], len(grown)) == (not lost["shared"], int(lost["shared"]))
    assert lost["shared"] == (os.cpu_count() != 1)
    if grown:
        assert running.said.count("fewer run side by side from now on") == 1
        assert grown[0]["slots"] < os.cpu_count()
        after = [row for row in rows(storage / "x") if row["event"] == "started" and row["seq"] > grown[0]["seq"]]
        assert {row["micro_batch_divisor"] for row in after} == {1}
    assert broken_promises(storage / "x") == []


def test_memory_that_never_suffices_is_an_outcome_of_that_trial_alone(storage: Path, asked, plant) -> None:
    faults = plant("trial.epoch:memory:4", "trial.epoch:memory:5")
    with Command(*asked("--max-concurrent", "1", "--checkpoint-every", "10m"), environment=faults) as running:
        assert running.end() == 0, running.said
    assert outcomes(storage / "x")[0] == (0, "out_of_memory", 2)
    assert {status for _, status, _ in outcomes(storage / "x")[1:]} <= {"completed", "stopped"}
    row = shown(storage / "x")[0]
    assert row["status"] == "out_of_memory"
    assert "2 attempts failed" in str(row["error"])


def test_a_worker_that_hangs_is_ended_and_its_trial_goes_on(storage: Path, asked, plant) -> None:
    faults = plant("trial.epoch:hang:5")
    with Command(*asked("--epoch-timeout", "3s", trials=2), environment=faults) as running:
        assert running.end() == 0, running.said
    lost = [row for row in rows(storage / "x") if row["event"] == "lost"]
    assert [(row["cause"], row["charged"]) for row in lost] == [("hung", True)]
    assert "no end after" in lost[0]["error"]
    assert {status for _, status, _ in outcomes(storage / "x")} <= {"completed", "stopped"}
    assert broken_promises(storage / "x") == []


def test_ctrl_c_does_not_wait_for_a_worker_that_hangs(storage: Path, asked, plant) -> None:
    with Command(*asked(), environment=plant("trial.epoch:hang:2")) as running:
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


def test_data_that_vanishes_ends_the_search_before_it_eats_all_trials(storage: Path, asked, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    environment = {"CONVSCOUT_CACHE": str(cache)}
    arguments = asked("--max-concurrent", "1", "--method", "random", trials=9, epochs=30)
    with Command(*arguments, environment=environment) as running:
        running.until_row(storage / "x", event="epoch", epoch=2)
        cache.rename(tmp_path / "gone")  # the worker that runs has mapped it; the next one finds nothing
        running.kill("worker")
        assert running.end() == 1, running.said
    assert "3 trials in a row could not be trained" in running.said
    assert "cannot be opened" in running.said
    assert "Traceback" not in running.said
    failed = [row for row in shown(storage / "x") if row["status"] == "data_error"]
    assert [row["trial"] for row in failed] == [0, 1, 2]
    with Command(*arguments, environment=environment) as again:  # the images are decoded again
        assert again.end() == 0, again.said
    assert [status for _, status, _ in outcomes(storage / "x")][3:] == ["completed"] * 6
    assert broken_promises(storage / "x") == []


def test_a_trial_that_rays_memory_monitor_kills_costs_no_other(storage: Path, asked, tmp_path: Path) -> None:
    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    if memory["MemAvailable"] < 12e6:
        pytest.skip("12 GB of free memory are needed")
    used = 1 - memory["MemAvailable"] / memory["MemTotal"]
    environment = {
        "RAY_memory_usage_threshold": str(used + 5e6 / memory["MemTotal"]),
        "RAY_memory_monitor_refresh_ms": "100",
    }
    (tmp_path / "hungry.py").write_text(HUNGRY)
    arguments = asked("--method", "grid", "--seed", "1", trials=6, epochs=30)
    own = [str(tmp_path / "hungry.py") if word == "cnn" else word for word in arguments]
    (tmp_path / "space.yaml").write_text("batch_size: 16\naccumulation_steps: 1\nlearning_rate: 0.001\n")
    with Command(*own, environment=environment) as running:
        assert running.end(450) == 0, running.said
    history = read_history(storage / "x")
    assert history.incarnation == 1
    for record in history.trials.values():
        if record.config["gigabytes"]:
            assert record.status == "out_of_memory"
            assert sum(row["charged"] for row in record.lost) == 2
        else:
            assert record.status in ("completed", "stopped")
    assert any(record.config["gigabytes"] for record in history.trials.values())
    assert "Traceback" not in running.said
    statuses = {row["status"] for row in shown(storage / "x")}
    assert "out_of_memory" in statuses

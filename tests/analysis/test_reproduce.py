"""Reproduce: the comparison and the causes on made-up rows, and one real trial trained again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from analysis.experiment import Experiment
from analysis.reproduce import COMPARED, Reproduction, compared, likely_causes
from cluster.history import History
from cluster.ledger import LEDGER
from cluster.record import TrialRecord

HOUSE = Path(__file__).parents[2]


def record(values: list[float | None], role: str = "search", **started: Any) -> TrialRecord:
    trial = TrialRecord(0, role, "cnn", {}, 1, {"epochs": len(values), "of": 0}, "random", 0.0)
    for number, value in enumerate(values, start=1):
        trial.epochs.append({"epoch": number, **dict.fromkeys(COMPARED, 1.0), "val_loss": value, "seconds": number})
    trial.started.append({"seq": 5, "device": "AMD", "micro_batch_divisor": 1, **started})
    return trial


def found(before: list[float | None], now: list[float | None]) -> Reproduction:
    original, again = record(before), record(now, "reproduce")
    differences = tuple(compared(original, again))
    return Reproduction(3, len(now), tuple(original.epochs), tuple(again.epochs), differences, ())


def test_equal_curves_are_equal_whatever_they_took() -> None:
    same = found([1.0, 0.5], [1.0, 0.5])
    assert same.equal
    assert same.sentence() == "Trial 3 was reproduced: all 2 epochs are equal, bit for bit."


def test_the_first_difference_and_the_largest_are_named() -> None:
    other = found([1.0, 0.5, 0.25], [1.0, 0.50001, 0.3])
    assert not other.equal
    assert [(each.epoch, each.metric) for each in other.differences] == [(2, "val_loss"), (3, "val_loss")]
    assert other.sentence() == (
        "Trial 3 differs from epoch 2 on: val_loss was 0.5 and is 0.50001 (2e-05 of it); "
        "at most 0.2 of it in any epoch."
    )


def test_an_epoch_that_is_no_number_now_and_a_curve_that_ends_early_are_differences() -> None:
    assert "val_loss was 0.5 and is no number" in found([1.0, 0.5], [1.0, None]).sentence()
    short = found([1.0, 0.5], [1.0])
    assert not short.equal
    assert short.sentence() == "Trial 3 ran 2 epochs and now ended after 1: those are equal."


def causes(original: TrialRecord, again: TrialRecord, *resumes: dict[str, Any], device: str = "cpu") -> list[str]:
    history = History()
    history.resumes = list(resumes)
    history.calibrated = {"settings": {original.architecture: {"device": device, "precision": "bf16"}}}
    asked = {"data": {"fingerprint": "f" * 64}, "versions": {"torch": "2.1"}}

    class WithData(Experiment):
        def cache(self) -> Any:
            return type("Cache", (), {"fingerprint": "f" * 64})

    return likely_causes(WithData(Path(), asked, history), original, again)


def test_what_has_changed_since_is_named() -> None:
    again = record([1.0], "reproduce", seq=9, device="NVIDIA H100")
    said = causes(record([1.0], micro_batch_divisor=2), again, {"seq": 8, "versions": {"torch": "2.2"}})
    assert said == [
        "hardware: it ran on AMD, now on NVIDIA H100",
        "batches: they were computed in 2 parts for want of memory, now in 1",
        "versions: torch was 2.1 and is 2.2",
    ]


def test_without_a_known_cause_that_is_said_and_a_gpu_is_suspected() -> None:
    assert causes(record([1.0]), record([1.0])) == [
        "none that is known: data, hardware, precision and versions are as they were"
    ]
    assert "bf16 on a GPU" in causes(record([1.0]), record([1.0]), device="cuda")[0]


@pytest.mark.timeout(150)
def test_a_real_trial_is_reproduced_bit_for_bit_and_a_changed_row_is_found(tmp_path: Path, striped: Path) -> None:
    (tmp_path / "space.yaml").write_text(
        "batch_size: 16\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"
    )

    def convscout(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(HOUSE / "convscout.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    budget = ("--arch", "cnn", "--trials", "1", "--epochs", "2", "--space", str(tmp_path / "space.yaml"))
    searched = convscout("search", str(striped), *budget, "--name", "x", "--storage", str(tmp_path))
    assert searched.returncode == 0, searched.stderr
    again = convscout("reproduce", str(tmp_path / "x"), "0")
    assert again.returncode == 0, again.stderr
    assert "all 2 epochs are equal, bit for bit" in again.stdout
    ledger = tmp_path / "x" / LEDGER
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    second = next(row for row in rows if row["event"] == "epoch" and row["epoch"] == 2)
    second["val_loss"] *= 1.01
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    other = convscout("reproduce", str(tmp_path / "x"), "0")
    assert other.returncode == 1
    assert "Trial 0 differs from epoch 2 on: val_loss was" in other.stdout
    assert "none that is known" in other.stdout
    shown = convscout("show", str(tmp_path / "x"), "--json")
    assert len(json.loads(shown.stdout)) == 1  # reproductions are in no leaderboard

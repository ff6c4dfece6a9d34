"""`convscout analyze --retrain-workers 2`: final models that two workers train together, from search to prediction."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cluster.ledger import LEDGER, read_history, read_rows

HOUSE = Path(__file__).parents[1]
SPACE = "batch_size: 64\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"
ANALYZE = ("--seeds", "1", "--finalists", "1", "--retrain-workers", "2", "--quiet")
EPOCHS = 3
LIMIT_SECONDS = 600.0

pytestmark = [
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="two workers need two cores"),
    pytest.mark.timeout(3 * LIMIT_SECONDS),
]


def convscout(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HOUSE / "convscout.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end of a command and return all that it said."""
    try:
        out, errors = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return out + errors


def rows(folder: Path, event: str) -> list[dict[str, Any]]:
    return [row for row in read_rows(folder / LEDGER) if row["event"] == event]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    (folder / "space.yaml").write_text(SPACE)
    budget = ("--trials", "2", "--epochs", str(EPOCHS), "--precision", "fp32", "--checkpoint-every", "0.1s")
    where = ("--name", "x", "--storage", str(folder), "--space", str(folder / "space.yaml"), "--quiet")
    ended(convscout("search", "digits", "--arch", "cnn", *budget, *where))
    return folder / "x"


@pytest.mark.slow
def test_two_workers_train_a_model_that_can_be_used_and_is_said_to_be_theirs(searched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(searched, folder)
    said = ended(convscout("analyze", str(folder), *ANALYZE))
    assert "2 workers together trained it, as every final model here." in said
    history = read_history(folder)
    assert {record.workers for record in history.of_role("retrain")} == {1}
    finals = history.of_role("final")
    assert {(record.workers, record.status) for record in finals} == {(2, "completed")}
    assert [row["workers"] for row in rows(folder, "started") if row["trial"] == finals[0].trial] == [2]
    assert len(rows(folder, "test_opened")) == 1
    losses = [row["train_loss"] for row in finals[0].epochs]
    assert losses == sorted(losses, reverse=True)
    assert "2 workers together trained it" in (folder / "report.html").read_text()
    assert "- workers that trained it together: `2`" in (folder / "model" / "README.md").read_text()
    cv2.imwrite(str(tmp_path / "image.png"), np.full((28, 28), 90, np.uint8))
    assert re.search(r"image\.png .*\d", ended(convscout("predict", str(folder), str(tmp_path / "image.png"))))

    again = ended(convscout("reproduce", str(folder), str(finals[0].trial), "--quiet"))
    assert "are equal, bit for bit" in again

    refused = ended(convscout("analyze", str(folder), *ANALYZE, "--reopen-test", "--retrain-workers", "999"), code=2)
    assert "999 workers that train one model together (--retrain-workers) ask for 1 CPU core each" in refused


@pytest.mark.faults
def test_after_ctrl_c_and_a_killed_worker_every_epoch_is_there_once(searched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(searched, folder)
    first = convscout("analyze", str(folder), *ANALYZE)
    end = time.monotonic() + LIMIT_SECONDS
    while not any(row.get("workers") == 2 for row in rows(folder, "started")):
        assert first.poll() is None, ended(first)
        assert time.monotonic() < end
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    assert "Interrupted; nothing is lost." in ended(first, code=130)
    assert rows(folder, "interrupted")

    counts = tmp_path / "fault-counts"
    counts.mkdir()
    plan = {"CONVSCOUT_FAULT": "trial.epoch:kill:4", "CONVSCOUT_FAULT_COUNTS": str(counts)}
    ended(convscout("analyze", str(folder), *ANALYZE, environment=plan))
    [lost] = rows(folder, "lost")
    assert (lost["cause"], lost["charged"]) == ("died", True)
    for record in read_history(folder).of_role("final"):
        assert record.status == "completed"
        assert [row["epoch"] for row in record.epochs] == list(range(1, record.work["epochs"] + 1))
    assert len(rows(folder, "test_opened")) == 1
    assert (folder / "model" / "weights.safetensors").exists()

"""A real search, interrupted by a signal, goes on where it was."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cluster.ledger import read_history, read_rows

HOUSE = Path(__file__).parents[1]
SPACE = "batch_size: 16\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"

pytestmark = pytest.mark.timeout(150)


def convscout(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HOUSE / "convscout.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_one_signal_stops_gently_and_resume_finishes_every_trial_once(tmp_path: Path, striped: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    storage = tmp_path / "runs"
    asked = ("--arch", "cnn", "--method", "tpe_asha", "--trials", "4", "--epochs", "60", "--patience", "2")
    more = ("--storage", str(storage), "--space", str(tmp_path / "space.yaml"), "--name", "x", "--precision", "fp32")
    search = convscout("search", str(striped), *asked, *more)
    assert search.stderr is not None
    try:
        for line in search.stderr:
            if "started" in line:
                break
        search.send_signal(signal.SIGINT)
        _, said = search.communicate(timeout=60)
    finally:
        search.kill()
    assert search.returncode == 130, said
    assert f"Interrupted; nothing is lost. Go on with: convscout resume {storage / 'x'}" in said
    events = [row["event"] for row in read_rows(storage / "x" / "ledger.jsonl")]
    assert events[-1] == "interrupted"
    assert "Traceback" not in said

    resumed = convscout("resume", str(storage / "x"))
    out, said = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    assert f"Next: convscout analyze {storage / 'x'}" in out
    history = read_history(storage / "x")
    assert len(history.trials) == 4
    ended = Counter(row["trial"] for row in read_rows(storage / "x" / "ledger.jsonl") if row["event"] == "ended")
    assert ended == dict.fromkeys(range(4), 1)
    for record in history.trials.values():
        assert [row["epoch"] for row in record.epochs] == list(range(1, len(record.epochs) + 1))
    assert any("patience" in (record.stop_reason or "") for record in history.trials.values())

"""The command line with an experiment in an S3 server: a killed worker, a killed driver, and other hosts after them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.ledger import LEDGER, read_rows
from cluster.remote import Remote, mirror_folder

HOUSE = Path(__file__).parents[1]
SPACE = "cnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16, batch_norm: false}\nbatch_size: 32\n"
pytestmark = pytest.mark.timeout(1800)


def convscout(*arguments: str, cache: Path, code: int = 0, **environment: str) -> str:
    """Run one command as a user on a host of that cache; return what it printed on standard output."""
    done = subprocess.run(
        [sys.executable, str(HOUSE / "convscout.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(HOUSE), "CONVSCOUT_CACHE": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def hosts(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes the folder of a host's own caches."""

    def host(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return folder

    return host


def test_the_whole_way_through_an_object_store(
    s3: str, striped: Path, hosts: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, counts, first = tmp_path / "space.yaml", tmp_path / "counts", hosts("first")
    space.write_text(SPACE)
    counts.mkdir()
    options = ("--arch", "cnn", "--precision", "fp32", "--space", str(space), "--name", "stripes", "--storage", s3)
    size = ("--trials", "2", "--epochs", "6", "--method", "random", "--max-concurrent", "1")
    convscout(
        *("search", str(striped), *options, *size, "--checkpoint-every", "0s", "--quiet"),
        cache=first,
        CONVSCOUT_FAULT="trial.epoch:kill:5,ledger.before_write:kill:16",
        CONVSCOUT_FAULT_COUNTS=str(counts),
    )
    monkeypatch.setenv("CONVSCOUT_CACHE", str(first))
    folder, stored = mirror_folder(s3) / "stripes", Remote(s3).under("stripes")
    rows = list(read_rows(folder / LEDGER))
    assert b"".join(map(stored.read, sorted(stored.objects("ledger")))) == (folder / LEDGER).read_bytes()
    assert [row["cause"] for row in rows if row["event"] == "lost"] == ["died"]
    assert len([row for row in rows if row["event"] == "resumed"]) == 1  # the driver was killed, too
    again = next(row for row in rows if row["event"] == "started" and row["attempt"] == 2)
    assert again["start_from"] in ("a01-e0003", "a01-e0004")  # of another process: it has nothing but what is stored
    assert [row["status"] for row in rows if row["event"] == "ended"] == ["completed", "completed"]
    assert not [path for path in folder.rglob("checkpoint") if any(path.iterdir())]
    assert not [name for name in stored.objects(deep=True) if "/checkpoint/" in name or name.startswith("lease/")]

    second = hosts("second")
    shown = json.loads(convscout("show", "stripes", "--storage", s3, "--json", cache=second))
    assert sorted(row["status"] for row in shown) == ["completed", "completed"]
    assert json.loads(convscout("runs", "--storage", s3, "--json", cache=second))[0]["experiment"] == "stripes"
    analysed = convscout("analyze", f"{s3}/stripes", "--finalists", "1", "--seeds", "2", "--quiet", cache=second)
    assert "Test accuracy" in analysed

    third = hosts("third")
    image = next(striped.rglob("*.png"))
    predicted = json.loads(convscout("predict", f"{s3}/stripes", str(image), "--json", cache=third))
    assert predicted[0]["label"] in ("class0", "class1", "class2")
    convscout("report", "stripes", "--storage", s3, cache=third)
    assert len(stored.read("report.html")) > 10_000
    assert {"analysis.json", "trials.csv", "model/weights.safetensors"} <= set(stored.objects(deep=True))
    other = convscout("search", str(striped), *options, *size[:-2], "--seed", "5", cache=third, code=2)
    assert f"convscout resume {s3}/stripes" in other

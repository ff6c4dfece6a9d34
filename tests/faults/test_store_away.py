"""A store that refuses, or is silent, in mid-search; and processes that are killed while they store something."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gate import NOTHING, Gate
from processes import Command, rows
from promises import broken_promises

from cluster.lease import newest
from cluster.ledger import LEDGER, read_history
from cluster.remote import Remote, mirror_folder

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500)]

SHORT_SECONDS = 20.0  # as promised
BEGIN_SECONDS, END_SECONDS = 400.0, 500.0


@pytest.fixture
def gate(s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Return a gate before the S3 server, through which everything of this test goes."""
    made = Gate(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.address)
    system = pytest.importorskip("s3fs").S3FileSystem
    system.clear_instance_cache()  # or fsspec goes on with the server of before
    yield made
    made.set("refuse")
    system.clear_instance_cache()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what goes on as another host does, which has nothing of the experiment."""

    def move() -> None:
        monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "another host"))

    return move


def ended(running: Command, code: int = 0) -> None:
    assert running.end(END_SECONDS) == code, running.said
    assert running.leaves_nothing()
    assert "Traceback" not in running.said


def _epochs(folder: Path, known: int) -> bool:
    """Whether an epoch has ended since the ledger had so many rows."""
    return any(row["event"] == "epoch" for row in rows(folder)[known:])


def kept(s3: str) -> Path:
    """Return the mirror of a finished experiment, once it has shown that the store has the same, and every promise."""
    folder, stored = mirror_folder(s3) / "x", Remote(s3).under("x")
    assert b"".join(map(stored.read, sorted(stored.objects("ledger")))) == (folder / LEDGER).read_bytes()
    assert broken_promises(folder) == []
    assert {record.status for record in read_history(folder).trials.values()} == {"completed"}
    return folder


def test_a_store_that_is_away_for_a_moment_is_waited_for_whatever_it_does_meanwhile(s3: str, gate: Gate, asked) -> None:
    folder, stored = mirror_folder(s3) / "x", Remote(s3).under("x")
    with Command(*asked("--storage", s3, "--method", "random", epochs=300)) as running:
        running.until_row(folder, event="epoch", timeout=BEGIN_SECONDS)
        for state in ("refuse", "fail", "swallow"):
            held, known = newest(stored), len(rows(folder))  # once the lease is renewed, the next 45 s begin
            running.until(lambda held=held, known=known: newest(stored) != held and _epochs(folder, known))
            gate.set(state)
            began = time.monotonic()
            running.until(lambda began=began: time.monotonic() - began > SHORT_SECONDS)
            gate.set("open")
        ended(running)
    assert "error" not in running.said
    history = read_history(kept(s3))
    assert history.incarnation == 1
    assert not any(record.lost for record in history.trials.values())


@pytest.mark.parametrize(("state", "host"), [("refuse", "same"), ("swallow", "another")])
def test_a_store_that_stays_away_halts_the_search_and_resume_loses_nothing(
    s3: str, gate: Gate, asked, elsewhere, state: str, host: str
) -> None:
    with Command(*asked("--storage", s3, "--method", "random")) as running:
        running.until_row(mirror_folder(s3) / "x", event="epoch", epoch=3, timeout=BEGIN_SECONDS)
        gate.set(state)
        ended(running, code=1)
    [said] = [line for line in running.said.splitlines() if line.startswith("error:")]
    assert said.startswith(f"error: the storage of {s3}/x could not be reached for 45 s: ")
    assert said.endswith(f"everything up to here is kept; once that is mended, go on with: convscout resume {s3}/x")
    gate.set("open")
    known = rows(mirror_folder(s3) / "x")
    if host == "another":  # what its host could not store any more is trained again
        elsewhere()
    with Command("resume", f"{s3}/x") as resumed:
        ended(resumed)
    now = rows(kept(s3))
    same = [old == new for old, new in zip(known, now, strict=False)]
    assert all(same) if host == "same" else same[:2] == [True, True]


def test_a_store_that_takes_all_but_the_ledger_halts_the_search_too(s3: str, gate: Gate, asked) -> None:
    with Command(*asked("--storage", s3, "--method", "random")) as running:
        running.until_row(mirror_folder(s3) / "x", event="epoch", epoch=3, timeout=BEGIN_SECONDS)
        gate.failing = re.compile(rb"PUT /trials/\S+/ledger/")
        ended(running, code=1)
    assert gate.failed.is_set()
    [said] = [line for line in running.said.splitlines() if line.startswith("error:")]
    assert said.startswith(f"error: {s3}/x/ledger/")
    assert said.endswith(f"go on with: convscout resume {s3}/x")
    gate.failing = NOTHING
    known = rows(mirror_folder(s3) / "x")
    with Command("resume", f"{s3}/x") as resumed:
        ended(resumed)
    assert rows(kept(s3))[: len(known)] == known


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
def test_a_worker_killed_while_it_stores_a_checkpoint_leaves_none_that_is_believed(
    s3: str, gate: Gate, asked, file: str
) -> None:
    gate.holding = re.compile(rb"PUT /trials/\S+/checkpoint/a01-e0003/" + file.encode())
    one = ("--max-concurrent", "1", "--checkpoint-every", "0s")
    with Command(*asked("--storage", s3, "--method", "random", *one, trials=2)) as running:
        running.until(gate.held.is_set, BEGIN_SECONDS)
        running.kill("worker")
        gate.holding = NOTHING
        ended(running)
    folder = kept(s3)
    first = read_history(folder).trials[0]
    assert [(row["attempt"], row["start_from"]) for row in first.started] == [(1, None), (2, "a01-e0002")]
    assert [row["cause"] for row in first.lost] == ["died"]
    damaged = first.started[1]["damaged"]
    assert [each.partition(":")[0] for each in damaged] == (["a01-e0003"] if file == "manifest.json" else [])
    written = [row for row in rows(folder) if row["event"] == "checkpoint" and row["trial"] == 0]
    assert [row["epoch"] for row in written if row["attempt"] == 1] == [1, 2]


@pytest.mark.parametrize(("kind", "host"), [("driver", "same"), ("parent", "another")])
def test_a_driver_killed_while_it_stores_the_ledger_goes_on_from_what_is_whole(
    s3: str, gate: Gate, asked, elsewhere, kind: str, host: str
) -> None:
    gate.holding = re.compile(rb"PUT /trials/\S+/ledger/00000006\.jsonl")
    with Command(*asked("--storage", s3, "--method", "random", trials=2, epochs=60)) as running:
        running.until(gate.held.is_set, BEGIN_SECONDS)
        known = rows(mirror_folder(s3) / "x")
        assert len(Remote(s3).under("x").objects("ledger")) == 5
        running.kill(kind)
        gate.holding = NOTHING
        if kind == "driver":
            ended(running)
        else:
            assert running.end(END_SECONDS) == -signal.SIGKILL
            assert running.leaves_nothing()
    if host == "another":
        elsewhere()
        with Command("resume", f"{s3}/x") as resumed:
            ended(resumed)
    folder = kept(s3)
    assert read_history(folder).incarnation == 2
    if host == "same":
        assert rows(folder)[: len(known)] == known

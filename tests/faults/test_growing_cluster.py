"""A search on a cluster that has no host for trials when it begins, gets two, loses one, and is joined by another."""

import signal
from pathlib import Path

import pytest
from growing import autoscaled
from processes import Command, rows

from cluster.ledger import read_history

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

KIND = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}


def together(folder: Path, after: int = 0) -> bool:
    """Whether two trials have been trained by different processes at the same time, after a row of the ledger."""
    pids: dict[int, int] = {}
    for row in rows(folder):
        if row["event"] == "started":
            pids[row["trial"]] = row["pid"]
        if row["event"] in ("ended", "lost"):
            pids.pop(row["trial"], None)
        if row["seq"] > after and len(set(pids.values())) > 1:
            return True
    return False


def test_hosts_come_are_used_and_go(tmp_path: Path, storage: Path, asked) -> None:
    with autoscaled(tmp_path, {"small": KIND}) as cluster:
        arguments = asked("--address", cluster.address, "--method", "random", "--quiet", trials=2, epochs=100_000)
        with Command(*arguments) as running:
            running.until(lambda: together(storage / "x"), 300)
            assert len(cluster.raylets()) == 2
            cluster.lose_host()
            lost = running.until_row(storage / "x", 200, event="lost")
            cluster.add_host()
            running.until(lambda: together(storage / "x", after=lost["seq"]), 300)
            running.kill("parent", signal.SIGINT)
            assert running.end(120) == 130, running.said
    history = read_history(storage / "x")
    again = history.trials[lost["trial"]]
    assert [row["attempt"] for row in again.started] == [1, 2]
    assert again.started[0]["node"] != again.started[1]["node"]
    assert again.started[1]["start_from"]
    for record in history.trials.values():
        assert [row["epoch"] for row in record.epochs] == list(range(1, len(record.epochs) + 1))


def test_what_no_host_can_ever_have_is_refused_at_once(tmp_path: Path, storage: Path, asked) -> None:
    with autoscaled(tmp_path, {"small": KIND}) as cluster:
        with Command(*asked("--address", cluster.address, "--gpus-per-trial", "1")) as running:
            assert running.end(250) == 2, running.said
        assert "a trial asks for 1 CPU cores and 1 GPUs on one host, but the hosts have 0 cores" in running.said
        assert not storage.exists() or not list(storage.iterdir())
        with Command(*asked("--address", cluster.address, "--cpus-per-trial", "2")) as running:
            assert running.end(250) == 2, running.said
        assert "a trial asks for 2 CPU cores" in running.said
        assert cluster.raylets() == []

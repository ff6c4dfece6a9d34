"""A search on a cluster that has no host for trials when it begins, gets two, loses one, and is joined by another."""

from pathlib import Path

import pytest
from growing import autoscaled
from processes import Command, rows
from promises import broken_promises

from cluster.ledger import read_history

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

KIND = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2}


def together(folder: Path, after: int = 0) -> int:
    """Return the `seq` of the first row after a given one at which two trials were trained by different processes at
    the same time; 0 if there is none."""
    pids: dict[int, int] = {}
    for row in rows(folder):
        if row["event"] == "started":
            pids[row["trial"]] = row["pid"]
        if row["event"] in ("ended", "lost"):
            pids.pop(row["trial"], None)
        if row["seq"] > after and len(set(pids.values())) > 1:
            return int(row["seq"])
    return 0


def test_hosts_come_are_used_and_go(tmp_path: Path, storage: Path, asked) -> None:
    with autoscaled(tmp_path, {"small": KIND}) as cluster:
        arguments = asked("--address", cluster.address, "--method", "random", "--quiet", trials=8, epochs=300)
        with Command(*arguments) as running:
            running.until(lambda: together(storage / "x"), 300)
            assert len(cluster.raylets()) == 2
            cluster.lose_host()
            lost = running.until_row(storage / "x", 200, event="lost")
            cluster.add_host()
            running.until(lambda: together(storage / "x", after=lost["seq"]), 300)
            assert running.end(400) == 0, running.said
    assert broken_promises(storage / "x") == []
    assert {record.status for record in read_history(storage / "x").trials.values()} == {"completed"}


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

"""A search on a cluster that has no host for trials when it begins, gets one, then another, and loses that."""

from pathlib import Path

import pytest
from growing import autoscaled
from processes import Command, rows
from promises import broken_promises

from cluster.ledger import read_history

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

KIND = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1}


def together(folder: Path) -> bool:
    """Whether two trials have been trained at the same time, by different processes."""
    pids: dict[int, int] = {}
    for row in rows(folder):
        if row["event"] == "started":
            pids[row["trial"]] = row["pid"]
        if row["event"] in ("ended", "lost"):
            pids.pop(row["trial"], None)
        if len(set(pids.values())) > 1:
            return True
    return False


def test_hosts_come_are_used_and_go(tmp_path: Path, storage: Path, asked) -> None:
    with autoscaled(tmp_path, {"small": KIND}) as cluster:
        arguments = asked("--address", cluster.address, "--method", "random", "--quiet", trials=6, epochs=300)
        with Command(*arguments) as running:
            running.until_row(storage / "x", 300, event="epoch")
            assert len(cluster.raylets()) == 1
            cluster.add_host()
            running.until(lambda: together(storage / "x"), 300)
            cluster.lose_host()
            running.until_row(storage / "x", 200, event="lost")
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

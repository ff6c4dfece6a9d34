"""Two drivers on one folder that hosts share: the second is refused by name, and of a frozen one nothing is taken."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from processes import HOUSE

from cluster.lease import LEASES
from cluster.ledger import LEDGER, read_rows

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

# Commands and drivers of a host of some name, for which everything lies on NFS.
HOST = """
import json, os, socket, sys, time
from pathlib import Path
from cluster import lease, lock
lock.MOUNTS, name = Path(sys.argv[1]), sys.argv[2]
socket.gethostname = lambda: name
folder = Path(sys.argv[3])
"""
COMMAND = """
import convscout
sys.argv = ["convscout", *sys.argv[3:]]
convscout.main()
"""
DRIVER = """
from cluster.ledger import Ledger
from terminal import driven
lease.RENEW_SECONDS, lease.LOOK_SECONDS, lease.EXPIRE_SECONDS = 0.5, 0.1, 5.0

def drive(lock):
    with Ledger(folder, lock) as ledger:
        if not ledger.history.experiment: ledger.append("experiment", name="x", trials=1)
        print("driving", flush=True)
        for number in range(rows):
            ledger.append("calibrated", by=name, number=number)
            time.sleep(0.02)

driven(folder, drive)
"""
ENDLESS, FEW = "\nrows = 10**9\n", "\nrows = 5\n"


class SharedFolder:
    """A folder that is on NFS as far as processes on it know."""

    def __init__(self, tmp_path: Path) -> None:
        self.mounts, self.folder = tmp_path / "mounts", tmp_path / "net" / "x"
        self.mounts.write_text(f"server:/runs {tmp_path}/net nfs4 rw 0 0\n")

    def run(self, host: str, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a script on a host; it is the leader of a group of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", HOST + textwrap.dedent(script), str(self.mounts), host, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=HOUSE,
            start_new_session=True,
        )

    def driver(self, host: str, rows: str) -> subprocess.Popen[str]:
        """Start a driver on a host, and return it when it writes."""
        started = self.run(host, rows + DRIVER, str(self.folder))
        assert started.stdout
        said = iter(started.stdout)
        assert "driving\n" in said
        return started


@pytest.fixture
def shared(tmp_path: Path) -> SharedFolder:
    return SharedFolder(tmp_path)


def end(process: subprocess.Popen[str]) -> None:
    """End a group of processes, whatever state it is in."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("host", ["first", "second"])
def test_a_second_driver_is_refused_and_told_who_holds_the_experiment(shared: SharedFolder, host: str) -> None:
    first = shared.driver("first", ENDLESS)
    try:
        second = shared.run(host, COMMAND, "resume", str(shared.folder))
        said, _ = second.communicate(timeout=120)
        assert first.poll() is None
    finally:
        end(first)
    holder = f"{shared.folder} is in use by host first, pid {first.pid}, since "
    error = next(line for line in said.splitlines() if line.startswith("error:"))
    assert second.returncode == 2
    assert error.startswith(f"error: {holder}")
    if host == "first":  # there it is known to live
        assert error.endswith(f"Wait for it, or end it with `convscout stop {shared.folder}`")
    else:
        assert said.startswith(holder)
        assert ": waiting up to 60 s for a sign of life." in said
        assert error.endswith(": wait, or stop it there")


def test_a_driver_that_froze_and_was_replaced_stops_and_nothing_of_it_counts(shared: SharedFolder) -> None:
    first, third = shared.driver("first", ENDLESS), None
    try:
        os.killpg(first.pid, signal.SIGSTOP)
        second = shared.run("second", FEW + DRIVER, str(shared.folder))
        said, _ = second.communicate(timeout=120)
        assert second.returncode == 0, said
        assert "waiting up to 5 s for a sign of life" in said
        rows = list(read_rows(shared.folder / LEDGER))
        assert [row["number"] for row in rows if row.get("by") == "second"] == list(range(5))
        third = shared.driver("third", ENDLESS)
        os.killpg(first.pid, signal.SIGCONT)
        errors, _ = first.communicate(timeout=120)
        assert first.returncode == 1
        assert third.poll() is None
    finally:
        for each in filter(None, (first, third)):
            end(each)
    assert f"error: {shared.folder} is no longer held here: another process has taken it over. Stopped" in errors
    assert errors.rstrip().endswith(f"go on with: convscout resume {shared.folder}")
    now = list(read_rows(shared.folder / LEDGER))
    assert now[: len(rows)] == rows
    assert {row["by"] for row in now[len(rows) :]} == {"third"}
    assert len(list((shared.folder / LEASES).iterdir())) == 1

"""The parent: it starts a dead driver again, passes signals on, gives up when nothing comes of it."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cluster.ledger import Ledger
from cluster.lock import LOCK, Lock, holder
from foundation import RequestError

HOUSE = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(60)

HEAD = """
import os, signal, sys, time
from pathlib import Path
from cluster import supervise
from cluster.ledger import Ledger
folder = Path(sys.argv[1])
supervise.LONGEST_PAUSE_SECONDS = 0.01
supervise.SAME_SIGNAL_SECONDS = 60.0  # a busy machine may hold up the second of two signals
def say(text): print(text, flush=True)
def learn(lock, times=1):
    with Ledger(folder, lock) as ledger:
        for _ in range(times): ledger.append("calibrated")
        return ledger.history.last_seq
def die(): os.kill(os.getpid(), signal.SIGKILL)
"""
TAIL = "\nsys.exit(supervise.supervise(folder, drive, say))\n"


def parent(folder: Path, drive: str) -> subprocess.Popen[str]:
    """Start a parent whose driver is the function `drive(lock)` of some source text."""
    script = HEAD + textwrap.dedent(drive) + TAIL
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HOUSE)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, said


def until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return line
    raise AssertionError(f"{word!r} was never said")


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_a_driver_that_comes_to_an_end_of_its_own_is_not_started_again(tmp_path: Path, code: int) -> None:
    drive = f"""
    def drive(lock):
        say("once")
        return {code}
    """
    assert ended(parent(tmp_path, drive)) == (code, "once\n")


def test_a_killed_driver_goes_on_as_long_as_it_gets_further(tmp_path: Path) -> None:
    drive = """
    def drive(lock):
        if learn(lock) == 4: return 0
        die()
    """
    code, said = ended(parent(tmp_path, drive))
    assert code == 0
    assert said.splitlines() == ["The driver was killed (SIGKILL); it starts again in 0.01 s, from the ledger."] * 3


def test_two_drivers_in_a_row_that_learn_nothing_are_enough(tmp_path: Path) -> None:
    drive = """
    def drive(lock):
        raise RuntimeError("a mistake of ours")
    """
    code, said = ended(parent(tmp_path, drive))
    assert code == 1
    assert said.count("starts again") == 1
    assert "The driver crashed again without getting any further: given up. What was learned is kept." in said


def test_there_is_a_limit_to_restarts_that_follow_one_another(tmp_path: Path) -> None:
    drive = """
    def drive(lock):
        learn(lock)
        die()
    """
    code, said = ended(parent(tmp_path, drive))
    assert code == 1
    assert said.count("starts again") == 10
    assert "again after 10 restarts: given up" in said


def test_a_signal_reaches_the_driver_once_and_its_code_is_returned(tmp_path: Path) -> None:
    drive = """
    def drive(lock):
        try:
            say("ready")
            while True: time.sleep(0.01)  # one long sleep would miss a signal that comes just before it
        except KeyboardInterrupt:
            say("stopped gently")
            return 130
    """
    process = parent(tmp_path, drive)
    until(process, "ready")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)  # its echo, as `ray job stop` or a terminal sends it
    assert ended(process) == (130, "stopped gently\n")


def test_a_signal_that_comes_when_the_driver_has_just_ended_changes_nothing(tmp_path: Path) -> None:
    drive = """
    wait = os.waitpid
    def waitpid(pid, options):
        ended = wait(pid, options)
        os.kill(os.getpid(), signal.SIGINT)
        return ended
    os.waitpid = waitpid
    def drive(lock):
        return 0
    """
    assert ended(parent(tmp_path, drive)) == (0, "")


def test_a_second_signal_kills_a_driver_that_does_not_end(tmp_path: Path) -> None:
    drive = """
    supervise.SAME_SIGNAL_SECONDS = 0.0
    def drive(lock):
        for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda *_: say("not yet"))
        say("ready")
        while True: time.sleep(1)
    """
    process = parent(tmp_path, drive)
    until(process, "ready")
    process.send_signal(signal.SIGINT)
    until(process, "not yet")
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


def test_a_driver_that_takes_too_long_to_stop_is_killed(tmp_path: Path) -> None:
    drive = """
    supervise.GENTLE_SECONDS = 1
    def drive(lock):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("ready")
        while True: time.sleep(1)
    """
    process = parent(tmp_path, drive)
    until(process, "ready")
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_the_driver_dies_with_its_parent_and_the_lock_is_free(tmp_path: Path) -> None:
    drive = """
    def drive(lock):
        say(f"driver {os.getpid()}")
        while True: time.sleep(1)
    """
    process = parent(tmp_path, drive)
    until(process, "driver")
    assert holder(tmp_path) == process.pid
    process.kill()
    process.communicate(timeout=30)  # the pipe closes when the driver, which shares it, is gone
    Lock(tmp_path).release()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to the parent")
def test_what_a_dead_driver_leaves_behind_is_ended(tmp_path: Path) -> None:
    drive = """
    import subprocess
    def drive(lock):
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        die()
    """
    process = parent(tmp_path, drive)  # its orphans share the pipe, which would stay open
    assert ended(process)[0] == 1


def test_while_a_driver_runs_nobody_else_may_and_is_told_who_does(tmp_path: Path) -> None:
    drive = """
    def drive(lock):
        say("ready")
        sys.stdin.read()
        return 0
    """
    script = HEAD + textwrap.dedent(drive) + TAIL
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HOUSE,
    )
    try:
        until(process, "ready")
        with pytest.raises(RequestError, match=rf"is in use by host .*, pid {process.pid}, since 2\d{{3}}-"):
            Ledger(tmp_path)
    finally:
        process.communicate("", timeout=30)
    Ledger(tmp_path).close()


def test_a_folder_that_holds_nothing_but_the_lock_goes_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "refused"
    Lock(folder).release()
    assert not folder.exists()
    lock = Lock(folder)
    (folder / "something").touch()
    lock.release()
    assert sorted(path.name for path in folder.iterdir()) == [LOCK, "something"]

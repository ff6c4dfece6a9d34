"""Runs the command line as a user does, finds every process it has made, and kills the one that is asked for."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.ledger import LEDGER, read_rows
from foundation import RequestError

HOUSE = Path(__file__).parents[2]
MARK = "CONVSCOUT_TEST_MARK"  # every process that comes of a command inherits it
KINDS = {
    "worker": lambda command: command.startswith(
        ("ray::ImageTrainable", "ray::ResourceTrainable")
    ),  # idle, or training
    "raylet": lambda command: "/raylet/raylet " in command,
    "head": lambda command: "/gcs/gcs_server " in command,
}

Row = dict[str, Any]


class Command:
    """One `convscout` command and all processes that come of it; none is left when the `with` block ends."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, str(HOUSE / "convscout.py"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {}), MARK: self.mark},
            cwd=cwd,
        )
        self.said = ""

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [self.process.pid, *self.pids()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def end(self, timeout: float = 240.0) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        self.said, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode

    def pids(self) -> list[int]:
        """Return every living process of the command but the first."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return sorted(set(found) - {self.process.pid})

    def pids_of(self, kind: str) -> list[int]:
        """Return the living processes of a kind: `parent`, `driver`, `worker`, `raylet` or `head`."""
        if kind == "parent":
            return [self.process.pid]
        if kind == "driver":
            return [pid for pid in self.pids() if _parent_of(pid) == self.process.pid]
        return [pid for pid in self.pids() if KINDS[kind](_command_of(pid))]

    def kill(self, kind: str, number: int = signal.SIGKILL) -> int:
        """Signal the newest process of a kind, and return its id."""
        pid = self.until(lambda: self.pids_of(kind))[-1]
        os.kill(pid, number)
        return pid

    def until(self, condition: Callable[[], Any], timeout: float = 150.0) -> Any:
        """Return the first true value of a condition that is looked at again and again."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            if self.process.poll() is not None:
                self.end()
                raise AssertionError(f"the command ended with {self.process.returncode}:\n{self.said}")
            if time.monotonic() > end:
                raise AssertionError(f"nothing of that within {timeout:.0f} s")
            time.sleep(0.05)
        return value

    def until_row(self, folder: Path, timeout: float = 150.0, **fields: Any) -> Row:
        """Wait until the ledger has a row with these fields, and return it."""

        def found() -> Row | None:
            return next((row for row in rows(folder) if fields.items() <= row.items()), None)

        row: Row = self.until(found, timeout)
        return row

    def leaves_nothing(self, timeout: float = 90.0) -> bool:
        """Whether all processes of the ended command are gone within a time.

        Ray's agents take 61 s to notice that their head is gone, where no parent is left to end them.
        """
        end = time.monotonic() + timeout
        while self.pids() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.pids()


@contextmanager
def command(*arguments: str, **options: Any) -> Iterator[Command]:
    """Run a command for the length of a `with` block."""
    with Command(*arguments, **options) as running:
        yield running


def rows(folder: Path) -> list[Row]:
    """Return the rows of a ledger that may be being written, or may not be there yet."""
    try:
        return list(read_rows(folder / LEDGER))
    except (FileNotFoundError, RequestError):
        return []


def _command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _parent_of(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0

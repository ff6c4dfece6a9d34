"""The lock of an experiment: one process at a time writes it, and a dead one's lock is free.

It is an flock on `ledger.lock`: the kernel frees it when the last process that holds it has died. A process forked
from the holder holds it too.
"""

import fcntl
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from foundation import RequestError

LOCK = "ledger.lock"


class Lock:
    """The right to write an experiment, taken on making one; its folder is made where it is missing.

    Raises `RequestError` naming the holder (host, process, since when) while someone else has it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made = [each for each in (folder, *folder.parents) if not each.exists()]
        self._descriptor = self._take()
        os.ftruncate(self._descriptor, 0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        os.pwrite(self._descriptor, f"host {socket.gethostname()}, pid {os.getpid()}, since {since}".encode(), 0)

    def release(self) -> None:
        """Give the lock back; a folder that holds nothing but the lock goes with it, and those made for it."""
        if self.folder.is_dir() and os.listdir(self.folder) == [LOCK]:
            (self.folder / LOCK).unlink()
            with suppress(OSError):  # something else is in there now
                for folder in self._made or [self.folder]:
                    folder.rmdir()
        os.close(self._descriptor)

    def _take(self) -> int:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # whoever made the folder has just removed it again
                continue
            if not _locked(descriptor):
                held = _said(descriptor) or "another process"
                os.close(descriptor)
                raise RequestError(
                    f"{self.folder} is in use by {held}. Wait for it, or end it with "
                    f"`convscout stop {self.folder.name}`"
                )
            if _is_at(descriptor, self.folder / LOCK):
                return descriptor
            os.close(descriptor)  # locked a file that its holder had removed meanwhile


def holder(folder: Path) -> int | None:
    """Return the process that holds an experiment, or None when nobody does; `RequestError` if it runs elsewhere."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        if _locked(descriptor):
            return None
        text = _said(descriptor)
    finally:
        os.close(descriptor)
    host, pid = text.removeprefix("host ").split(", pid ", 1)
    if host != socket.gethostname():
        raise RequestError(f"{folder} is in use on another host ({text}): stop it there")
    return int(pid.split(",")[0])


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _said(descriptor: int) -> str:
    return os.pread(descriptor, 1000, 0).decode(errors="replace").strip()


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False

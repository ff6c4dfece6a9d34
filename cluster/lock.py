"""The lock of an experiment: one process at a time writes it, and a dead one's lock is free.

On a local disk it is an flock on `ledger.lock`: the kernel frees it when the last process that holds it has died. A
process forked from the holder holds it too. On a network's file system it is a lease (`cluster/lease.py`), since an
flock there may hold on one host alone; for an object store it is a lease there and an flock on its local mirror.
"""

import fcntl
import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.lease import LEASES, Lease, holder_words, is_dead, newest, parsed
from cluster.naming import called, run_argument
from cluster.remote import Remote, refusal, store_of
from foundation import HaltError, RequestError

LOCK = "ledger.lock"
NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|lustre|ceph|beegfs|gpfs|glusterfs|afs|orangefs|wekafs|davfs"
    r"|fuse\.(sshfs|glusterfs|ceph|ceph-fuse|juicefs|gcsfuse|s3fs|rclone|mfs|mount-s3|davfs2?|blobfuse2?)"
)
MOUNTS = Path("/proc/self/mounts")


class Lock:
    """The right to write an experiment, taken on making one; its folder is made where it is missing.

    Raises `RequestError` naming the holder (host, process, since when) while someone else has it. Where that is a
    matter of waiting for a sign of life, `tell` says so.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None] = lambda _: None) -> None:
        self.folder = folder
        self._made = [each for each in (folder, *folder.parents) if not each.exists()]
        self._descriptor: int | None = None
        self.lease: Lease | None = None
        leased = _leased(folder)
        if leased is None or store_of(folder):
            self._descriptor = self._take()
            os.ftruncate(self._descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(self._descriptor, f"host {socket.gethostname()}, pid {os.getpid()}, since {since}".encode(), 0)
        if leased is not None:
            try:
                with _refused_by(leased):
                    self.lease = Lease(leased, called(folder), tell)
            except BaseException:
                self.release()
                raise

    def check(self) -> None:
        """Raise `HaltError` when the lease has been lost; a child of its holder is ended by that."""
        if self.lease and self.lease.lost:
            raise HaltError(self.lease.lost)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Keep still inside: this process may be forked."""
        if self.lease is None:
            yield
            return
        with self.lease.at_rest:
            yield

    def release(self) -> None:
        """Give the lock back; a folder that holds nothing but the lock goes with it, and those made for it."""
        if self.lease:
            self.lease.release()
        if self._descriptor is None:
            with suppress(OSError):  # something else is in there
                for folder in (self.folder / LEASES, *self._made):
                    folder.rmdir()
            return
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
                    f"{called(self.folder)} is in use by {held}. Wait for it, or end it with "
                    f"`convscout stop {run_argument(self.folder)}`"
                )
            if _is_at(descriptor, self.folder / LOCK):
                return descriptor
            os.close(descriptor)  # locked a file that its holder had removed meanwhile


def holder(folder: Path) -> int | None:
    """Return the process that holds an experiment, or None when nobody does; `RequestError` if it runs elsewhere."""
    if (leased := _leased(folder)) is not None:
        return _lease_holder(leased, called(folder))
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


def is_held_here(folder: Path) -> bool:
    """Whether a process of this host, this one included, holds the flock of an experiment."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)


def file_system(path: Path, mounts: str) -> str:
    """Return the type of the file system that holds a path, as the table of mounts says; "" if it does not."""
    there = path.resolve()
    found = ("", "")
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 3:
            continue
        point = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), words[1])
        if there.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, words[2])
    return found[1]


def is_on_network(path: Path) -> bool:
    """Whether a path lies on a file system that other hosts may have too."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # there is no /proc
        return False
    return bool(NETWORK_FILE_SYSTEMS.fullmatch(file_system(path, mounts)))


def _leased(folder: Path) -> Remote | None:
    """Return where the lease of an experiment lies, None where an flock is enough."""
    return store_of(folder) or (Remote(f"file://{folder}") if is_on_network(folder) else None)


def _lease_holder(leased: Remote, shown: str) -> int | None:
    with _refused_by(leased):
        content = newest(leased)[1]
    if content is None:
        return None
    held = parsed(content)
    dead = is_dead(held)
    if dead is None:
        raise RequestError(
            f"{shown} is in use on another host ({holder_words(held)}): stop it there. If that host is gone, "
            f"`convscout resume {shlex.quote(shown)}` takes it over"
        )
    return None if dead else int(held["pid"])


@contextmanager
def _refused_by(store: Remote) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError(refusal(store.url, error)) from error


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

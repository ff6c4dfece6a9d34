"""Files that the driver's host sends to this one: kept once per host, by their digest, beside the image caches."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from foundation import Finding, RequestError, cache_root, folder_written_beside, write_json

SENT = "sent"  # the folder, beside the caches, that holds what was sent
UNUSED_SECONDS = 7 * 24 * 3600.0  # what was sent and not used for a week goes when something else comes
_READ_BYTES = 2**22
_REMEDY = "set CONVSCOUT_CACHE on that host to a folder"


class Sender(Protocol):
    """What brings files to this host."""

    @property
    def total_bytes(self) -> int:
        """Return the size of all files."""

    def fetch_into(self, folder: Path) -> None:
        """Write all files into a folder; `OSError` where that cannot be done."""


Send = Callable[[Path, Sequence[str]], Sender | None]  # of a folder, files by name; None where there is no other host


def digest_of(files: Iterable[Path], more: str = "") -> str:
    """Return a digest of the bytes of some files, in this order, their names and sizes, and `more`.

    It is BLAKE3, ten times as fast as SHA-256, as it must be computed on every host.
    """
    total = blake3(more.encode())
    for path in files:
        total.update(f"\n{path.name} {path.stat().st_size}\n".encode())
        with open(path, "rb") as file:
            while part := file.read(_READ_BYTES):
                total.update(part)
    return total.hexdigest()


def digest_once(files: Sequence[Path], more: str = "", known: str | None = None) -> str:
    """Return `digest_of` these files, computed again only where one is not what it was.

    `known` is their digest where it has been computed already, to be kept for the next time.
    """
    states = {str(path): path.stat() for path in files}
    now = [more, {name: [each.st_ino, each.st_size, each.st_mtime_ns] for name, each in states.items()}]
    name = hashlib.sha256(json.dumps([socket.gethostname(), more, *states]).encode()).hexdigest()[:32]
    kept = cache_root() / SENT / f".{name}.digest"
    with suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(kept.read_text("utf-8"))
        if before["of"] == json.loads(json.dumps(now)):
            return str(before["digest"])
    digest = known or digest_of(files, more)
    with suppress(OSError):  # no room, or no right: the next process computes it again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"of": now, "digest": digest})
    return digest


@contextmanager
def one_at_a_time(digest: str) -> Iterator[None]:
    """Let one process of the host at a time look for, or fetch, the same; one that dies lets the next one go on.

    Where the cache folder cannot be made there is nothing to fetch into, and no turn to wait for.
    """
    root = cache_root() / SENT
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / f".{digest[:32]}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # where the file system knows no locks, each fetches for itself
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def place_of(digest: str) -> Path:
    """Return the folder where what has this digest is kept when it was sent."""
    return cache_root() / SENT / digest[:32]


def fetched(what: str, digest: str, sender: Sender, digest_in: Callable[[Path], str]) -> Path:
    """Return the folder of what was sent, fetched whole and checked: what `digest_in(folder)` gives is its digest.

    Raises `RequestError` naming the host where there is no room for it, or it did not come as it was sent.
    """
    folder = place_of(digest)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _make_room(folder.parent, sender.total_bytes)
        with folder_written_beside(folder) as beside:
            sender.fetch_into(beside)
            if (came := digest_in(beside)) != digest:
                raise OSError(
                    errno.EIO, f"what came is not what was sent: its digest is {came[:12]}, not {digest[:12]}"
                )
    except OSError as error:
        remedy = f"make room there, or {_REMEDY} that has it"
        if error.errno == errno.EIO:
            remedy = "see that the driver's host is reached and nothing writes to its cache, and run again"
        raise RequestError(
            f"host {socket.gethostname()}: {what} could not be fetched into {str(folder.parent)!r} "
            f"({error.strerror or error}): {remedy}"
        ) from error
    return folder


def room_finding(what: str, sender: Sender) -> Finding:
    """Return whether this host, which has not what is to be sent, can take it."""
    root, size = cache_root(), _size(sender.total_bytes)
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(0, "Permission denied")
    except OSError as error:
        said = f"{what} are not there, and the cache folder {str(root)!r} cannot be written ({error.strerror})"
        return Finding("data", "problem", said, f"{_REMEDY} that can be written")
    if free < sender.total_bytes:
        said = f"{what} are not there and take {size}, and {str(root)!r} has {_size(free)} free"
        return Finding("data", "problem", said, f"make room there, or {_REMEDY} that has it")
    return Finding("data", "ok", f"gets {what}, {size}, when a first trial begins there")


def _make_room(root: Path, needed: int) -> None:
    """Remove what was not used for long; raise `OSError` unless so many bytes are free then."""
    for path in root.iterdir():
        if path.is_dir() and not path.name.startswith(".") and time.time() - path.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    if (free := shutil.disk_usage(root).free) < needed:
        raise OSError(errno.ENOSPC, f"that takes {_size(needed)}, and {_size(free)} are free")


def _size(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"

"""Files as they were found: read only while they are still that, here or on another host."""

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from blake3 import blake3

# A file is read whole, and on each thread one: what is larger is no picture of any use here, or a trap.
MOST_FILE_BYTES = 2**28


class CannotHelp(Exception):
    """Another host cannot do a piece of the work exactly as this one would: a file of DATA is another there, say."""


def too_large(size: int) -> str:
    """Return why a file of so many bytes is not read, "" where it is."""
    return f"{size:,} bytes: at most {MOST_FILE_BYTES:,} are read" if size > MOST_FILE_BYTES else ""


class Listed(NamedTuple):
    """A file as it was found: its path as the system knows it, its size in bytes, and when it was changed.

    A tuple and a plain path, because a data set has a great many: as dataclasses with `Path`s they took three times
    as long to list.
    """

    path: str
    size: int
    modified_ns: int

    def read(self) -> bytes:
        """Return its bytes; raises `OSError` unless it is still what was found, as keys stand for that."""
        if reason := too_large(self.size):
            raise OSError(reason)
        try:
            # Not to wait for a writer where a pipe has taken the file's place.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise OSError("it has vanished since it was listed") from error
        try:
            status = os.fstat(descriptor)
            same = stat.S_ISREG(status.st_mode) and status.st_mtime_ns == self.modified_ns
            same = same and status.st_size == self.size
            content = b""
            while same and len(content) < self.size and (piece := os.read(descriptor, self.size - len(content))):
                content += piece
        finally:
            os.close(descriptor)
        if not same or len(content) != self.size:
            raise OSError("it has changed since it was listed")
        return content


@dataclass(frozen=True)
class Files:
    """Some files by their paths in DATA, to be read on another host under their names here, with their inodes here.

    The same inode there, size and time are those of one file on a file system that both hosts share. Of any other only
    the content says whether it is a copy: it is `unsure`.
    """

    listed: Mapping[str, tuple[Listed, int]]
    unsure: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def named(cls, found: Iterable[tuple[str, str, Listed]]) -> Self:
        """Return files from their paths in DATA, their names for other hosts, and what was found of them here."""
        return cls({path: (each._replace(path=name), _inode(each.path)) for path, name, each in found})

    def read(self, path: str) -> bytes:
        """Return the bytes of one file; `CannotHelp` unless one of the same size is there."""
        listed, inode = self.listed[path]
        try:
            there = os.stat(listed.path)
            if there.st_size != listed.size:
                raise OSError(f"it has {there.st_size:,} bytes there, {listed.size:,} here")
            content = listed._replace(modified_ns=there.st_mtime_ns).read()
        except OSError as error:
            raise CannotHelp(f"{listed.path}: {error.strerror or error}") from error
        if (there.st_mtime_ns, there.st_ino) != (listed.modified_ns, inode):
            self.unsure[path] = content_digest(content)
        return content


def _inode(path: str) -> int:
    """Return a file's number on its file system, 0 where it is gone: no file has that."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def content_digest(content: bytes) -> bytes:
    """Return a digest by which two hosts tell whether they have the same bytes."""
    return blake3(content).digest()

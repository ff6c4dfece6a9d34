"""A tar archive as a source of images, unpacked into a temporary folder.

What an archive says of itself is not believed: names, sizes and links are checked one member at a time, before
memory or disk is used for it.
"""

import bz2
import errno
import gzip
import lzma
import os
import shutil
import struct
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, cast

from blake3 import blake3

from foundation import RequestError
from trainables.files import too_large
from trainables.sources import MOST_EXPANSION, TWICE, FolderSource, Refused, Tree, bad_name, utf8

# What a tar may expand to in all, however small it is.
_ALLOWANCE_BYTES = 2**30
# The most that is read at once: tarfile would read a header whole, however long it claims to be.
_PIECE_BYTES = 2**20

# Everything that tarfile raises for damaged archives; a property test in tests/faults looks for more.
_DAMAGED = (
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,  # RecursionError, for a thousand headers of headers
    ValueError,
)


def is_tar(path: Path) -> bool:
    """Say whether the file at `path` begins as a tar does, plain or compressed."""
    try:
        with _uncompressed(path) as file, _opened(file):
            return True
    except _DAMAGED:
        return False


class TarSource:
    """A tar archive, plain or compressed, unpacked into a temporary folder when its files are first asked for.

    Its key is the BLAKE3 of the archive file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        content = blake3()
        with open(self._path, "rb") as file:
            while part := file.read(_PIECE_BYTES):
                content.update(part)
        return content.hexdigest()

    @cached_property
    def _unpacked(self) -> tuple[FolderSource, Sequence[Refused]]:
        folder = Path(tempfile.mkdtemp(prefix="convscout-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        unpacking = _Unpacking(self._path, folder)
        try:
            unpacking.run()
        except _DAMAGED as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise RequestError(
                f"data {str(self._path)!r} cannot be unpacked ({error}): give a whole archive, or a folder"
            ) from error
        except RequestError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return FolderSource(folder), unpacking.refused

    def tree(self) -> Tree:
        """Return what is in there."""
        folder, refused = self._unpacked
        tree = folder.tree()
        return Tree(tree.files, tree.folders, (*refused, *tree.refused))

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        return self._unpacked[0].read(path)

    def elsewhere(self, paths: Sequence[str]) -> None:
        """Return None: it was unpacked on this host alone."""


class _Unpacking:
    """One way through a tar. Only folders, regular files and hard links to files before them are made.

    Nothing of what a member says of owners, permissions and times is applied, and as no symbolic link is ever made,
    a path without ".." cannot lead out of the folder.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.refused: list[Refused] = []
        self._path = path
        self._folder = folder
        self._most_bytes = max(_ALLOWANCE_BYTES, MOST_EXPANSION * path.stat().st_size)
        self._unpacked_bytes = 0

    def run(self) -> None:
        """Unpack; raises one of `_DAMAGED`, or `RequestError` for what expands too far or does not fit."""
        with _uncompressed(self._path) as file, _opened(file) as archive:
            end = 0
            while (member := archive.next()) is not None:
                if member.size < 0 or archive.offset <= end:
                    raise tarfile.ReadError("a member lies before the one before it")
                end = archive.offset
                archive.members = []  # type: ignore[attr-defined]  # a million of them would take 1 GB
                self._check_room(member)
                try:
                    reason = bad_name(member.name) or self._make(archive, member)
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise self._no_room() from error
                    if error.errno in (None, errno.EIO):
                        raise  # of the archive or of the disk; anything else is of this one name
                    reason = f"cannot be unpacked ({error.strerror})"
                if reason:
                    self.refused.append(Refused(utf8(member.name), reason))
            # Where a header is damaged or missing tarfile stops as if that were the end; the end is zeros.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise EOFError("it has no end")
            # The checksum of what was unpacked stands behind everything that is compressed.
            while file.read(_PIECE_BYTES):
                self._check_expansion(file.tell())

    def _check_room(self, member: tarfile.TarInfo) -> None:
        self._unpacked_bytes += member.size
        self._check_expansion(max(self._unpacked_bytes, member.offset_data + member.size))
        if member.size > shutil.disk_usage(self._folder).free:
            raise self._no_room()

    def _no_room(self) -> RequestError:
        free_bytes = shutil.disk_usage(self._folder).free
        return RequestError(
            f"data {str(self._path)!r} needs more room to be unpacked than the {free_bytes // 2**20} MB that are "
            f"free in {str(self._folder.parent)!r}: set TMPDIR to a folder that has it, or give the folder"
        )

    def _check_expansion(self, expanded_bytes: int) -> None:
        if expanded_bytes > self._most_bytes:
            raise RequestError(
                f"data {str(self._path)!r} expands to more than {self._most_bytes / 1e9:.1f} GB: over 1 GiB and over "
                f"{MOST_EXPANSION} times the archive's own size is taken for a bomb; if it is none, give the folder"
            )

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
        """Make what `member` says and return "", or return why it is refused."""
        target = self._folder / member.name
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return ""
        if member.issym():
            return "symbolic link in an archive"
        if not (member.isreg() or member.islnk()):
            return "device or pipe in an archive"
        if member.islnk():
            linked = self._folder / member.linkname
            if bad_name(member.linkname) or not linked.is_file():
                return "hard link to no file that stands before it in the archive"
            if linked == target:
                return "hard link to itself"
        elif reason := too_large(member.size):
            return reason
        target.parent.mkdir(parents=True, exist_ok=True)
        twice = target.is_file()
        target.unlink(missing_ok=True)
        if member.islnk():
            os.link(linked, target)
        else:
            self._write(archive, member, target)
        return TWICE if twice else ""

    @staticmethod
    def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        content = archive.extractfile(member)
        assert content is not None
        with open(target, "xb") as file:
            shutil.copyfileobj(content, file, _PIECE_BYTES)
            if file.tell() != member.size:
                raise EOFError(f"it ends inside {utf8(member.name)!r}")


class _InPieces:
    """A file that gives a bounded number of bytes at a time, as tarfile reads a long header in one piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _PIECE_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _uncompressed(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if start.startswith(b"BZh"):
        return bz2.open(path)
    if start.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return lzma.open(path)
    return open(path, "rb")


def _opened(file: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast(IO[bytes], _InPieces(file)), mode="r:")

"""A zip archive as a source of images, read in place.

What an archive says of itself is not believed: names, sizes and links are checked before a member is read, and no
more than a piece of it is expanded at a time.
"""

import itertools
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from foundation import RequestError
from trainables.files import CannotHelp, too_large
from trainables.sources import MOST_EXPANSION, TWICE, Refused, Tree, bad_name, digest

# What a member may expand to, however small it is in the archive.
_ALLOWANCE_BYTES = 2**24
# What is asked for at once: more would be made of it before a member that claims to be small is found out.
_PIECE_BYTES = 2**20

# Everything that zipfile raises for damaged archives; a property test in tests/faults looks for more.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class ZipSource:
    """A zip archive, read in place. Its key depends on the name, size and checksum of each member."""

    def __init__(self, path: Path) -> None:
        """Read the archive's directory; raises `RequestError` where it cannot be read."""
        # One object for all threads: since Python 3.6 each read takes the archive's lock for its own seek, and
        # a further ZipFile would parse the whole directory again (0.4 s for 50,000 members).
        self._path = os.path.abspath(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except _DAMAGED as error:
            raise RequestError(f"data {str(path)!r} is an archive that cannot be read ({error})") from error
        found = self._archive.infolist()
        self._members = {member.filename.removeprefix("./"): member for member in found}
        kept = {id(member) for member in self._members.values()}
        self._twice = [Refused(member.filename, TWICE) for member in found if id(member) not in kept]
        self._overlapping = _overlapping(found)

    @cached_property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        lines = sorted(f"{name}\0{member.file_size}\0{member.CRC}" for name, member in self._members.items())
        return digest("zip", lines)

    def tree(self) -> Tree:
        """Return what is in there."""
        files, folders, refused = [], set[str](), [*self._twice]
        for name, member in self._members.items():
            reason = self._refusal(member)
            if reason:
                refused.append(Refused(name, reason))
                continue
            if not member.is_dir():
                files.append(name)
            parts = name.rstrip("/").split("/")
            depth = len(parts) if member.is_dir() else len(parts) - 1
            folders.update("/".join(parts[:end]) for end in range(1, depth + 1))
        return Tree(tuple(sorted(files)), tuple(sorted(folders)), tuple(refused))

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        member = self._members[path]
        content = bytearray()
        try:
            with self._archive.open(member) as file:
                while piece := file.read(_PIECE_BYTES):
                    content += piece
        except _DAMAGED as error:
            raise OSError(f"damaged in the archive ({error})") from error
        if len(content) != member.file_size:
            raise OSError("damaged in the archive (it ends too early)")
        return bytes(content)

    def elsewhere(self, paths: Sequence[str]) -> "Archive":
        """Return what reads these files on another host, from the archive of the same name."""
        return Archive(self._path, self.key)

    def _refusal(self, member: zipfile.ZipInfo) -> str:
        kind = stat.S_IFMT(member.external_attr >> 16)
        if reason := bad_name(member.filename):
            return reason
        if kind == stat.S_IFLNK:
            return "symbolic link in an archive"
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            return "device, pipe or socket in an archive"
        if member.flag_bits & 1:
            return "encrypted"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # zipfile expands whatever it has read by these: 300 MB of zeros are 240 bytes of bzip2.
            return f"compressed by method {member.compress_type}: stored and Deflate (0 and 8) are read"
        if reason := too_large(member.file_size):
            return reason
        if member.header_offset in self._overlapping:
            return "its bytes are also another member's: no program makes such archives, bombs are"
        if member.file_size > max(_ALLOWANCE_BYTES, MOST_EXPANSION * member.compress_size):
            return (
                f"expands {member.file_size // max(member.compress_size, 1):,} times, to {member.file_size:,} bytes: "
                f"more than {MOST_EXPANSION} times is taken for a bomb"
            )
        return ""


@dataclass(frozen=True)
class Archive:
    """A zip archive, to be read on another host under its name here, if it is the one that has this key."""

    path: str
    key: str

    @property
    def unsure(self) -> dict[str, bytes]:
        """Return nothing: the key holds the checksum of every file."""
        return {}

    def read(self, path: str) -> bytes:
        """Return the bytes of one file; raises `CannotHelp` where it cannot be read, or the archive is another one."""
        try:
            return _opened(self.path, self.key).read(path)
        except OSError as error:
            raise CannotHelp(f"{path} in {self.path}: {error.strerror or error}") from error


@lru_cache(maxsize=1)
def _opened(path: str, key: str) -> ZipSource:
    try:
        source = ZipSource(Path(path))
    except RequestError as error:
        raise CannotHelp(str(error)) from error
    if source.key != key:
        raise CannotHelp(f"{path}: it holds other files there")
    return source


def _overlapping(members: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Return where the members begin that reach into the next one: a bomb's many members are one and the same."""
    found = set()
    ordered = sorted(members, key=lambda member: member.header_offset)
    for member, following in itertools.pairwise(ordered):
        # A local header has 30 bytes and a name; what else may stand there only makes it longer.
        if member.header_offset + 30 + member.compress_size > following.header_offset:
            found |= {member.header_offset, following.header_offset}
    return found

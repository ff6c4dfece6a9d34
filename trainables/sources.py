"""Where image files come from: a folder, a zip or a tar. Each lists its files and reads one of them as bytes.

A path is always relative to the source, with forward slashes. Anything that could lead outside the source, or
round in circles, is refused and listed with the reason.
"""

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from foundation import RequestError


@dataclass(frozen=True)
class Refused:
    """A file that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Tree:
    """The regular files and the folders of a source, sorted, and what of it is refused."""

    files: tuple[str, ...]
    folders: tuple[str, ...]
    refused: tuple[Refused, ...]


class Source(Protocol):
    """What every form of DATA offers.

    `key` changes whenever what can be seen from outside changes. `read` may be called from many threads at
    once and raises `OSError` with the reason when a file cannot be read.
    """

    @property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""


class TreeSource(Source, Protocol):
    """A source whose labels are in the names of its folders."""

    def tree(self) -> Tree:
        """Return what is in there."""


def cache_root() -> Path:
    """Return the folder of everything that can be made again: $CONVSCOUT_CACHE, else ~/.cache/convscout."""
    return Path(os.environ.get("CONVSCOUT_CACHE") or "~/.cache/convscout").expanduser().absolute()


def digest(kind: str, lines: Iterable[str]) -> str:
    """Return the SHA-256 of a kind and of lines in their order, as hexadecimal digits."""
    text = "\n".join([kind, *lines])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class FolderSource:
    """A folder. Its key depends on the relative path, size and modification time of each file."""

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()

    @cached_property
    def _scan(self) -> tuple[Tree, str]:
        scan = _FolderScan(self._root)
        scan.enter("", self._root, (self._root,))
        files = sorted(scan.files)
        lines = [f"{path}\0{size}\0{modified_ns}" for path, size, modified_ns in files]
        tree = Tree(tuple(file[0] for file in files), tuple(sorted(scan.folders)), tuple(scan.refused))
        return tree, digest("folder", lines)

    @property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        return self._scan[1]

    def tree(self) -> Tree:
        """Return what is in there."""
        return self._scan[0]

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        return (self._root / path).read_bytes()


class _FolderScan:
    """One walk through a folder, following symbolic links only where they stay inside and do not loop."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[tuple[str, int, int]] = []
        self.folders: list[str] = []
        self.refused: list[Refused] = []

    def enter(self, prefix: str, folder: Path, above: tuple[Path, ...]) -> None:
        """List `folder`; `above` are the resolved folders that the walk is inside of."""
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            self.refused.append(Refused(prefix.rstrip("/"), f"folder cannot be read ({error.strerror})"))
            return
        for entry in entries:
            path = prefix + entry.name
            try:
                reason = self._refusal(entry, above)
                if reason:
                    self.refused.append(Refused(path, reason))
                elif entry.is_dir():
                    self.folders.append(path)
                    inside = Path(entry.path)
                    # Only a link can lead elsewhere than below; resolving every folder would be slow.
                    real = inside.resolve() if entry.is_symlink() else above[-1] / entry.name
                    self.enter(path + "/", inside, (*above, real))
                else:
                    status = entry.stat()
                    self.files.append((path, status.st_size, status.st_mtime_ns))
            except OSError as error:
                self.refused.append(Refused(path, f"cannot be read ({error.strerror})"))

    def _refusal(self, entry: os.DirEntry[str], above: tuple[Path, ...]) -> str:
        if entry.is_symlink():
            target = Path(os.path.realpath(entry.path))
            if not target.is_relative_to(self.root):
                return "symbolic link that leaves the folder"
            if target in above:
                return "symbolic link to a folder it lies in"
            if not target.exists():
                return "symbolic link that leads nowhere"
        if not (entry.is_dir() or entry.is_file()):
            return "not a regular file"
        return ""


class ZipSource:
    """A zip archive, read in place. Its key depends on the name, size and checksum of each member."""

    def __init__(self, path: Path) -> None:
        # One object for all threads: since Python 3.6 each read takes the archive's lock for its own seek, and
        # a further ZipFile would parse the whole directory again (0.4 s for 50,000 members).
        self._archive = zipfile.ZipFile(path)
        self._members = {member.filename.removeprefix("./"): member for member in self._archive.infolist()}

    @cached_property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        lines = sorted(f"{name}\0{member.file_size}\0{member.CRC}" for name, member in self._members.items())
        return digest("zip", lines)

    def tree(self) -> Tree:
        """Return what is in there."""
        files, folders, refused = [], set[str](), []
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
        try:
            return self._archive.read(self._members[path])
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise OSError(f"damaged in the archive ({error})") from error

    @staticmethod
    def _refusal(member: zipfile.ZipInfo) -> str:
        if _leads_outside(member.filename):
            return "its path leaves the archive"
        if stat.S_ISLNK(member.external_attr >> 16):
            return "symbolic link in an archive"
        if member.flag_bits & 1:
            return "encrypted"
        return ""


class TarSource:
    """A tar archive, plain or compressed, extracted into a temporary folder when its files are first asked for.

    Its key is the SHA-256 of the archive file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outside: list[Refused] = []

    @cached_property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        with open(self._path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def _folder(self) -> FolderSource:
        folder = tempfile.mkdtemp(prefix="convscout-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            with tarfile.open(self._path) as archive:
                archive.extractall(folder, filter=self._keep)
                # Where a header is damaged or missing tarfile stops as if that were the end; the end is zeros.
                archive.fileobj.seek(archive.offset)
                if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise EOFError("it has no end")
        except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise RequestError(
                f"data {str(self._path)!r} cannot be unpacked ({error}): give a whole archive, or a folder"
            ) from error
        return FolderSource(Path(folder))

    def _keep(self, member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
        if _leads_outside(member.name):
            self._outside.append(Refused(member.name, "its path leaves the archive"))
            return None
        try:
            return tarfile.data_filter(member, folder)
        except tarfile.FilterError:
            self._outside.append(Refused(member.name, "link or device that leaves the archive"))
            return None

    def tree(self) -> Tree:
        """Return what is in there."""
        tree = self._folder.tree()
        return Tree(tree.files, tree.folders, (*self._outside, *tree.refused))

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        return self._folder.read(path)


def _leads_outside(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")

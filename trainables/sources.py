"""Where image files come from: what every source offers, and the folder. A source lists files and reads one as bytes.

A path is always relative to the source, with forward slashes, and is valid UTF-8. Anything that could lead outside
the source, or round in circles, is refused and listed with the reason.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import access
from pathlib import Path
from typing import Protocol

from trainables.files import Files, Listed

MOST_LEVELS = 100

_EFFECTIVE_IDS = access in os.supports_effective_ids

# Of an archive. Deflate reaches 1,032 times, bzip2 and LZMA more; photographs reach 1, flat drawings as BMP some 50.
MOST_EXPANSION = 100
TWICE = "stands more than once in the archive: the last one is used"


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


class Reader(Protocol):
    """Gives the bytes of files by their paths; may be called from many threads at once.

    Raises `OSError` with the reason when a file cannot be read.
    """

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""


class Source(Reader, Protocol):
    """What every form of DATA offers; `key` changes whenever what can be seen from outside changes."""

    @property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""

    def elsewhere(self, paths: Sequence[str]) -> "RemoteReader | None":
        """Return what reads these files on another host under the same names; None where only this host has them."""


class RemoteReader(Reader, Protocol):
    """Gives the bytes of files of DATA on another host; raises `CannotHelp` where they are not those of this one."""

    @property
    def unsure(self) -> dict[str, bytes]:
        """Return the `content_digest` of each file that may be another than here for all that is seen from outside."""


class TreeSource(Source, Protocol):
    """A source whose labels are in the names of its folders."""

    def tree(self) -> Tree:
        """Return what is in there."""


def digest(kind: str, lines: Iterable[str]) -> str:
    """Return the SHA-256 of a kind and of lines in their order, as hexadecimal digits."""
    text = "\n".join([kind, *lines])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def utf8(name: str) -> str:
    r"""Return a file's name as valid UTF-8: each byte that is none becomes its number, `caf\xe9.png`.

    Python's own form of such a name can be opened but neither written as JSON nor printed.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def bad_name(name: str) -> str:
    """Return why the name of an archive's member cannot be used, "" where it can."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts:
        return "its path leaves the archive"
    if "\0" in name:
        return "a zero byte in its name"
    if len(parts) > MOST_LEVELS:
        return f"more than {MOST_LEVELS} folders deep"
    return ""


def may_read(path: str | Path) -> bool:
    """Say whether this process may read the file, as it is asked before anything is decoded."""
    return access(path, os.R_OK, effective_ids=_EFFECTIVE_IDS)


class FolderSource:
    """A folder. Its key depends on the relative path, size and modification time of each file."""

    def __init__(self, folder: Path) -> None:
        self._given = os.path.abspath(folder)
        self._root = folder.resolve()

    @cached_property
    def _scan(self) -> tuple[Tree, str, dict[str, Listed]]:
        scan = _FolderScan(self._root)
        scan.run()
        files = {path: scan.files[path] for path in sorted(scan.files)}
        lines = [f"{path}\0{file.size}\0{file.modified_ns}" for path, file in files.items()]
        tree = Tree(
            tuple(files), tuple(sorted(scan.folders)), tuple(sorted(scan.refused, key=lambda refusal: refusal.path))
        )
        return tree, digest("folder", lines), files

    @property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        return self._scan[1]

    def tree(self) -> Tree:
        """Return what is in there."""
        return self._scan[0]

    def read(self, path: str) -> bytes:
        """Return the bytes of one file, which must still be what was listed."""
        return self._scan[2][path].read()

    def elsewhere(self, paths: Sequence[str]) -> Files:
        """Return what reads these files on another host, below the folder as it was named here."""
        root, files = str(self._root), self._scan[2]
        return Files.named((path, self._given + files[path].path.removeprefix(root), files[path]) for path in paths)


class _FolderScan:
    """One walk through a folder, following symbolic links only where they stay inside and do not loop."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, Listed] = {}
        self.folders: list[str] = []
        self.refused: list[Refused] = []
        # Path as it is shown and as the system knows it, the resolved folders that it lies in, and whether a link led
        # there. A list, because a thousand folders inside one another are too deep for recursion.
        self._to_do: list[tuple[str, Path, tuple[Path, ...], bool]] = [("", root, (root,), False)]

    def run(self) -> None:
        """Walk through all of it."""
        while self._to_do:
            self._enter(*self._to_do.pop())

    def _enter(self, prefix: str, folder: Path, above: tuple[Path, ...], linked: bool) -> None:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            self.refused.append(Refused(prefix.rstrip("/"), f"folder cannot be read ({error.strerror})"))
            return
        shown = [utf8(entry.name) for entry in entries]
        names = Counter(shown)
        for entry, name in zip(entries, shown, strict=True):
            path = prefix + name
            try:
                reason = self._refusal(entry, above, linked)
                if name != entry.name and names[name] > 1:
                    reason = "its name is not UTF-8, and written as UTF-8 it is another's"
                if reason:
                    self.refused.append(Refused(path, reason))
                elif entry.is_dir():
                    self.folders.append(path)
                    # Only a link can lead elsewhere than below; resolving every folder would be slow.
                    real = Path(entry.path).resolve() if entry.is_symlink() else above[-1] / entry.name
                    through_link = linked or entry.is_symlink()
                    self._to_do.append((path + "/", Path(entry.path), (*above, real), through_link))
                else:
                    status = entry.stat()
                    self.files[path] = Listed(entry.path, status.st_size, status.st_mtime_ns)
            except OSError as error:
                self.refused.append(Refused(path, f"cannot be read ({error.strerror})"))

    def _refusal(self, entry: os.DirEntry[str], above: tuple[Path, ...], linked: bool) -> str:
        if entry.is_symlink():
            target = Path(os.path.realpath(entry.path))
            if not target.is_relative_to(self.root):
                return "symbolic link that leaves the folder"
            if target in above:
                return "symbolic link to a folder it lies in"
            if not target.exists():
                return "symbolic link that leads nowhere"
            if linked and target.is_dir():
                # Ten folders that link to one another would be ten million paths.
                return "symbolic link to a folder, in a folder that is itself reached by one"
        if entry.is_dir():
            return f"more than {MOST_LEVELS} folders deep" if len(above) >= MOST_LEVELS else ""
        if not entry.is_file():
            return "not a regular file"
        # Not left to the decoding: the key must change when the file may be read, or the cache would not notice.
        if not may_read(entry.path):
            return "cannot be read (Permission denied)"
        return ""

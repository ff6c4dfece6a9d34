"""A CSV with the columns path,label[,split][,group] as a source of images."""

import csv
import hashlib
import io
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foundation import Problems, RequestError, unknown_word
from trainables.files import Files, Listed, too_large
from trainables.sources import Refused, digest, may_read

# The name under which the reader keeps the cells of a row that have no column.
_TOO_MANY = "\0"

COLUMNS = ("path", "label", "split", "group")
_HEADER = "path,label[,split][,group]"
_OTHER_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}

# What a split may be called, in a CSV or as a folder, and which split it is.
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Item:
    """One image file: its path within the source, its class, and its split and group where these are given."""

    path: str
    label: str
    split: str | None = None
    group: str | None = None


class CsvSource:
    """A CSV file in UTF-8; its paths are relative to the CSV's folder.

    Its first row names the columns, in any order and case. The key depends on the CSV's content and on the size and
    modification time of each file it names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.parent

    @cached_property
    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        """Return (line, {column: cell}) of each row, with the columns checked."""
        text = self._text()
        self._check_separator(text.partition("\n")[0])
        try:
            reader = csv.DictReader(io.StringIO(text, newline=""), restkey=_TOO_MANY, restval="", strict=True)
            columns = [_column(cell) for cell in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise RequestError(f"data {str(self._path)!r} cannot be read as CSV ({error})") from error
        self._check_columns(columns)
        if not rows:
            raise RequestError(f"data {str(self._path)!r} has no rows: one row for each image must follow its header")
        return rows

    def _text(self) -> str:
        try:
            if reason := too_large(self._path.stat().st_size):
                raise RequestError(f"data {str(self._path)!r} cannot be read as CSV ({reason})")
            text = self._path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RequestError(f"data {str(self._path)!r} is not UTF-8 ({error}): save it as UTF-8") from error
        except OSError as error:
            raise RequestError(f"data {str(self._path)!r} cannot be read as CSV ({error})") from error
        if "\0" in text:  # UTF-16 without a byte order mark can be valid UTF-8
            raise RequestError(f"data {str(self._path)!r} is not UTF-8 (it holds zero bytes): save it as UTF-8")
        return text

    def _check_separator(self, first_line: str) -> None:
        for separator, name in _OTHER_SEPARATORS.items():
            cells = [_column(cell) for cell in first_line.split(separator)]
            if len(cells) > 1 and not set(COLUMNS).isdisjoint(cells):
                raise RequestError(
                    f"data {str(self._path)!r}: the cells are separated by {name} and must be separated by ','"
                )

    def _check_columns(self, columns: list[str]) -> None:
        if set(COLUMNS).isdisjoint(columns):
            found = repr(",".join(columns)[:80]) if columns else "nothing"
            raise RequestError(
                f"data {str(self._path)!r} has no header: the first row must be {_HEADER}, but is {found}"
            )
        problems = Problems()
        for column in columns:
            if column not in COLUMNS:
                problems.add(f"data {str(self._path)!r}: {unknown_word('column', column, COLUMNS)}")
        for column in COLUMNS:
            if columns.count(column) > 1:
                problems.add(f"data {str(self._path)!r} has the column {column!r} twice")
        for column in COLUMNS[:2]:
            if column not in columns:
                problems.add(f"data {str(self._path)!r} has no column {column!r}: its columns are {', '.join(columns)}")
        problems.raise_if_any()

    @cached_property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        lines = [hashlib.sha256(self._path.read_bytes()).hexdigest()]
        for _, row in self._rows:
            listed = self._listed.get(row["path"].strip())
            lines.append(f"{listed.size} {listed.modified_ns}" if listed else "missing")
        return digest("csv", lines)

    @cached_property
    def _listed(self) -> dict[str, Listed]:
        """Return the files that the rows name, are there, and may be read."""
        found = {}
        for path in {row["path"].strip() for _, row in self._rows}:
            file = os.path.join(self._folder, path)
            with suppress(OSError):  # a row whose file cannot be asked about is refused
                status = os.stat(file)
                if stat.S_ISREG(status.st_mode) and may_read(file):
                    found[path] = Listed(file, status.st_size, status.st_mtime_ns)
        return found

    def read(self, path: str) -> bytes:
        """Return the bytes of one file, which must still be what was listed."""
        return self._listed[path].read()

    def elsewhere(self, paths: Sequence[str]) -> Files:
        """Return what reads these files on another host, under the same names."""
        found = self._listed
        return Files.named((path, os.path.abspath(found[path].path), found[path]) for path in paths)

    def rows(self) -> tuple[list[Item], list[Refused]]:
        """Return an item for each row whose file is there, and the rows that are refused, with the reason.

        Raises `RequestError` with every unknown split, empty cell and group that lies on two sides of a split.
        """
        problems = Problems()
        items: dict[str, Item] = {}
        refused = []
        for number, row in self._rows:
            item = self._item(number, row, problems)
            reason = self._refusal(item, items.get(item.path))
            if reason:
                refused.append(Refused(item.path, f"row {number} {reason}"))
            else:
                items[item.path] = item
        self._check_groups(items.values(), problems)
        if len(problems.found) > 10:
            problems.found[10:] = [f"data {str(self._path)!r}: {len(problems.found) - 10} more rows like these"]
        problems.raise_if_any()
        return list(items.values()), refused

    def _refusal(self, item: Item, earlier: Item | None) -> str:
        if earlier and item.label != earlier.label:
            return f"labels {item.label!r} a file that an earlier row labels {earlier.label!r}; the earlier row counts"
        if earlier:
            return "names a file that an earlier row names"
        tried = os.path.abspath(self._folder / item.path)
        if not os.path.isfile(tried):
            return f"names a file that does not exist: {tried} (paths are relative to the CSV's folder)"
        if item.path not in self._listed:
            return f"names a file that cannot be read (Permission denied): {tried}"
        return ""

    def _item(self, number: int, row: dict[str, str], problems: Problems) -> Item:
        where = f"data {str(self._path)!r}, row {number}"
        if row.pop(_TOO_MANY, None):
            problems.add(f"{where} has more cells than there are columns")
        cells = {column: cell.strip() for column, cell in row.items()}
        for column, cell in cells.items():
            if not cell:
                problems.add(f"{where}: the {column} is empty")
        split = cells.get("split", "").lower()
        if split and split not in SPLIT_WORDS:
            problems.add(f"{where}: {unknown_word('split', split, SPLIT_WORDS)}")
        return Item(cells["path"], cells["label"], SPLIT_WORDS.get(split), cells.get("group"))

    def _check_groups(self, items: Iterable[Item], problems: Problems) -> None:
        splits = defaultdict(set)
        for item in items:
            if item.group and item.split:
                splits[item.group].add(item.split)
        for group, found in splits.items():
            if len(found) > 1:
                problems.add(
                    f"data {str(self._path)!r}: group {group!r} is in {' and '.join(sorted(found))}; "
                    f"a group belongs to one split"
                )


def _column(cell: str) -> str:
    """Return what a header's cell says, without the spaces and quotes around it, in lower case."""
    return cell.strip(' \t\r"').lower()

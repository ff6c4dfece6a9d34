"""A CSV with the columns path,label[,split][,group] as a source of images."""

import csv
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from foundation import Problems, RequestError, unknown_word
from trainables.sources import Refused, digest

# The name under which the reader keeps the cells of a row that have no column.
_TOO_MANY = "\0"

COLUMNS = ("path", "label", "split", "group")

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
    """A CSV file; its paths are relative to the CSV's folder.

    The key depends on the CSV's content and on the size and modification time of each file it names.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.parent

    @cached_property
    def _rows(self) -> list[tuple[int, dict[str, str]]]:
        """Return (line, {column: cell}) of each row, with the columns checked."""
        try:
            with open(self._path, newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file, restkey=_TOO_MANY, restval="", strict=True)
                columns = reader.fieldnames or ()
                rows = [(reader.line_num, row) for row in reader]
        except (ValueError, OSError, csv.Error) as error:
            raise RequestError(f"data {str(self._path)!r} cannot be read as CSV ({error})") from error
        problems = Problems()
        for column in columns:
            if column not in COLUMNS:
                problems.add(f"data {str(self._path)!r}: {unknown_word('column', column, COLUMNS)}")
        for column in COLUMNS:
            if columns.count(column) > 1:
                problems.add(f"data {str(self._path)!r} has the column {column!r} twice")
        for column in COLUMNS[:2]:
            if column not in columns:
                found = ", ".join(columns) or "none"
                problems.add(f"data {str(self._path)!r} has no column {column!r}: its columns are {found}")
        problems.raise_if_any()
        return rows

    @cached_property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        lines = [hashlib.sha256(self._path.read_bytes()).hexdigest()]
        for _, row in self._rows:
            try:
                status = os.stat(self._folder / row["path"].strip())
                lines.append(f"{status.st_size} {status.st_mtime_ns}")
            except OSError:
                lines.append("missing")
        return digest("csv", lines)

    def read(self, path: str) -> bytes:
        """Return the bytes of one file."""
        return (self._folder / path).read_bytes()

    def rows(self) -> tuple[list[Item], list[Refused]]:
        """Return an item for each row whose file is there, and the rows that are refused, with the reason.

        Raises `RequestError` with every unknown split, empty cell and group that lies on two sides of a split.
        """
        problems = Problems()
        items: dict[str, Item] = {}
        refused = []
        for number, row in self._rows:
            item = self._item(number, row, problems)
            if item.path in items:
                refused.append(Refused(item.path, f"row {number} names a file that an earlier row names"))
            elif not os.path.isfile(self._folder / item.path):
                refused.append(Refused(item.path, f"row {number} names a file that does not exist"))
            else:
                items[item.path] = item
        self._check_groups(items.values(), problems)
        if len(problems.found) > 10:
            problems.found[10:] = [f"data {str(self._path)!r}: {len(problems.found) - 10} more rows like these"]
        problems.raise_if_any()
        return list(items.values()), refused

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

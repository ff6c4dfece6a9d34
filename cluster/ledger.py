"""The ledger: one JSON object a line, only ever appended, by one process under a lock.

It is the only state of an experiment. Every row carries `seq`, `time` (seconds since 1970), `incarnation` (which
writer) and `event`; what each event holds is in `docs/ledger.md`. In an object store the ledger is kept as segments
(`cluster/segments.py`), which are stored at the pace at which a local disk is synced.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.history import History
from cluster.lock import Lock
from cluster.mirror import Uploader, fetching, store_to_fetch
from cluster.remote import Remote, store_of
from cluster.segments import Segments, fetch_segments, is_replaced, segment_names
from foundation import RequestError, fault

LEDGER = "ledger.jsonl"
SYNC_SECONDS = 1.0
JUMP_SECONDS = 1.0  # by which the clock on the wall may drift from the process's own between two rows
SYNC_EVENTS = frozenset({"experiment", "ended", "chosen", "test_opened", "interrupted"})

Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a ledger in order; a broken last line is ignored, since a crash may leave one.

    Rows that an older writer managed to append after a newer one began are dropped. Raises `RequestError` with
    the line number where anything else does not parse.
    """
    yield from _valid(_parse(path)[0])


def _valid(rows: list[Row]) -> Iterator[Row]:
    newest = 0
    for row in rows:
        if row["incarnation"] >= newest:
            newest = row["incarnation"]
            yield row


def _parse(path: Path) -> tuple[list[Row], int]:
    """Return all rows of a ledger, and how many bytes of it are sound."""
    rows: list[Row] = []
    sound = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("the line was cut")
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is no object")
        except ValueError as error:
            if number < len(lines):
                raise RequestError(
                    f"{path}, line {number}: not a JSON row: {line[:80]!r}. The ledger is damaged there; "
                    "restore the file from a copy, or cut it before that line to go on from what came earlier"
                ) from error
            break
        rows.append(row)
        sound += len(line)
    return rows, sound


def fetch_ledger(folder: Path) -> None:
    """Bring a mirror's ledger up to what its store holds; nothing for any other folder, or one written from here now.

    Raises `RequestError` where the store refuses.
    """
    with store_to_fetch(folder) as store:
        if store:
            if is_replaced(store, folder):  # what is here may be the last copy
                folder.rename(folder.with_name(f".{folder.name}.replaced-{time.time_ns()}"))
            fetch_segments(store, folder, folder / LEDGER)


def read_history(folder: Path) -> History:
    """Replay the ledger of an experiment folder without locking it; raises `RequestError` if there is none."""
    path = folder / LEDGER
    if not path.exists():
        raise RequestError(f"{folder} holds no {LEDGER}: it is no experiment. `convscout runs` lists those there are")
    history = History()
    for row in read_rows(path):
        history.apply(row)
    return history


class Ledger:
    """An experiment's ledger, opened for writing: appends rows and keeps the `history` they add up to.

    It is written under the experiment's lock: the one given, which stays its owner's, or one of its own; that raises
    `RequestError` naming the holder when someone else has it. A row is written at once, so it survives SIGKILL; it
    is synced to disk at most once a second, and always at the events that nothing may contradict later.
    """

    def __init__(self, folder: Path, lock: Lock | None = None) -> None:
        self.path = folder / LEDGER
        self._own_lock = None if lock else Lock(folder)
        self._lock = lock or self._own_lock
        self.history = History()
        self._bytes = 0
        self._segments: Segments | None = None
        self._uploader: Uploader | None = None
        if store := store_of(folder):
            try:
                self._open_store(store, folder)
            except BaseException:
                self._let_go()
                raise
        if self.path.exists():
            rows, self._bytes = _parse(self.path)
            for row in _valid(rows):
                self.history.apply(row)
        self.incarnation = self.history.incarnation + 1
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._file, self._bytes)  # a line cut by a crash must not swallow the next one
        self._synced = 0.0
        self._clocks: tuple[float, float] | None = None

    def _open_store(self, store: Remote, folder: Path) -> None:
        """Bring this host up to the store, and the store up to what the last driver here could not store."""
        with fetching(folder):
            if is_replaced(store, folder):
                raise RequestError(f"{store.url} has become another experiment meanwhile: ask again")
            stored = fetch_segments(store, folder, self.path)
            self._uploader = Uploader(store, folder)
        self._segments = Segments(store, folder, stored)
        if self.path.exists():
            lines = self.path.read_bytes()[: _parse(self.path)[1]]
            known = sum((folder / name).stat().st_size for name in segment_names(stored))
            if missing := lines[known:]:
                self._segments.append(missing, now=True)

    def append(self, event: str, **fields: Any) -> Row:
        """Append one row, fold it into the history and return it.

        Raises OSError, naming the file, when it cannot be written or is no longer there, and `HaltError` when another
        process has become its writer.
        """
        row = {
            "seq": self.history.last_seq + 1,
            "time": round(time.time(), 3),
            "incarnation": self.incarnation,
            "event": event,
            **fields,
            **self._jumped(),
        }
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        fault("ledger.before_write")
        if self._lock:
            self._lock.check()
        try:
            self._write(line)
            if self._segments:
                self._segments.append(line, now=event in SYNC_EVENTS)
            if event in SYNC_EVENTS or time.monotonic() - self._synced >= SYNC_SECONDS:
                self._sync()
        except OSError as error:
            raise OSError(error.errno, error.strerror, error.filename or str(self.path)) from error
        fault("ledger.after_write")
        self.history.apply(row)
        return row

    def _jumped(self) -> Row:
        """Return what a row says where the wall's clock has jumped since the last one: while the machine slept, the
        process's own clock stood still."""
        wall, own = time.time(), time.monotonic()
        before, self._clocks = self._clocks or (wall, own), (wall, own)
        jumped = (wall - before[0]) - (own - before[1])
        return {"clock_jumped": round(jumped, 3)} if abs(jumped) > JUMP_SECONDS else {}

    def _write(self, line: bytes) -> None:
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self._bytes)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes += len(line)

    def _sync(self) -> None:
        os.fsync(self._file)
        if not os.path.samestat(os.fstat(self._file), os.stat(self.path)):  # rows written into a removed file are lost
            raise OSError(errno.ESTALE, "another file has taken its place")
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and store what was written, and give the lock back, unless it was handed in."""
        with suppress(OSError):  # whoever could not write has said so
            os.fsync(self._file)
        os.close(self._file)
        try:
            if self._segments and self._uploader:
                self._segments.close()
                self._uploader.close()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._segments:
            self._segments.stop()
        if self._uploader:
            self._uploader.stop()
        if self._own_lock:
            self._own_lock.release()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""The ledger in an object store, which cannot append: numbered segments, each made only where there is none.

`ledger/00000001.jsonl` and so on, in order, are the ledger. A writer that finds the next number taken is not the only
one, and stops: that, and not the lease, is what keeps two ledgers from being mixed. Only `cluster/ledger.py` uses this.

A host keeps copies of the segments it knows beside its `ledger.jsonl`, so it fetches each once.
"""

import threading
import time
from pathlib import Path

from cluster.remote import Remote, at_once
from foundation import HaltError, RequestError, written_beside

SEGMENTS = "ledger"
PUSH_SECONDS = 1.0
FIRST = 1


def is_replaced(store: Remote, folder: Path) -> bool:
    """Whether a mirror is of an experiment that is no longer in the store, or of an earlier one of the same name."""
    first = folder / _name(FIRST)
    if not first.exists():
        return False
    try:
        return store.read(_name(FIRST)) != first.read_bytes()
    except FileNotFoundError:
        return True


def fetch_segments(store: Remote, folder: Path, ledger: Path) -> int:
    """Bring the ledger file of a host up to what the store holds, and return how many segments that is.

    A file that only goes on where the store ends is left as it is: its driver died before it could store the rest.
    Otherwise the store is right. Raises `RequestError` where a segment is missing, OSError where the store refuses.
    """
    names = sorted(name for name in store.objects(SEGMENTS) if name.endswith(".jsonl"))
    for number, name in enumerate(names, start=FIRST):
        if name != _name(number):
            raise RequestError(
                f"{store.url}: {_name(number)} is missing, and {name} is there. The ledger is damaged; "
                "restore the object, or remove all later ones to go on from what came earlier"
            )
    if not names:
        return 0
    at_once(lambda name: store.fetch(name, folder / name), [name for name in names if not (folder / name).exists()])
    stored = b"".join((folder / name).read_bytes() for name in names)
    here = ledger.read_bytes() if ledger.exists() else b""
    if not here.startswith(stored):
        with written_beside(ledger) as beside:
            beside.write_bytes(stored)
    return len(names)


class Segments:
    """Stores the rows that are handed over, from a thread once a second, or at once and waited for.

    `count` segments are there already. What keeps it from storing is raised by the next call: `HaltError` where
    another writer has made the next segment, OSError where the store refuses.
    """

    def __init__(self, store: Remote, folder: Path, count: int) -> None:
        self.store, self.folder = store, folder
        self._next = FIRST + count
        self._rows: list[bytes] = []
        self._failed: HaltError | OSError | None = None
        self._pushing, self._ended = threading.Lock(), threading.Event()
        self._stored = 0.0
        self._thread = threading.Thread(target=self._keep_pushing, name="segments", daemon=True)
        self._thread.start()

    def append(self, line: bytes, *, now: bool) -> None:
        """Take a row; with `now` it is in the store when this returns."""
        self._raise_if_failed()
        self._rows.append(line)
        if now:
            self._push()
            self._raise_if_failed()

    def close(self) -> None:
        """Store what is left, and end."""
        self.stop()
        self._push()
        self._raise_if_failed()

    def stop(self) -> None:
        """End as things are."""
        self._ended.set()
        self._thread.join()

    def _keep_pushing(self) -> None:
        while not self._ended.wait(PUSH_SECONDS / 4):
            if time.monotonic() - self._stored >= PUSH_SECONDS:
                self._push()

    def _push(self) -> None:
        with self._pushing:
            taken = len(self._rows)
            if not taken or self._failed:
                return
            content = b"".join(self._rows[:taken])
            name = _name(self._next)
            try:
                self._create(name, content)
                (self.folder / SEGMENTS).mkdir(exist_ok=True)
                with written_beside(self.folder / name) as beside:
                    beside.write_bytes(content)
            except (HaltError, OSError) as error:
                self._failed = error
                return
            self._next += 1
            del self._rows[:taken]
            self._stored = time.monotonic()

    def _create(self, name: str, content: bytes) -> None:
        try:
            self.store.create(name, content)
        except FileExistsError:
            if self.store.read(name) != content:  # else it is ours: a request that was sent again
                raise HaltError(
                    f"another process writes the ledger of {self.store.url} too ({name} is there already): "
                    "this one stops, what it did since is not kept"
                ) from None

    def _raise_if_failed(self) -> None:
        if self._failed:
            raise self._failed


def segment_names(count: int) -> list[str]:
    """Return the names of the first so many segments, in order."""
    return [_name(number) for number in range(FIRST, FIRST + count)]


def _name(number: int) -> str:
    return f"{SEGMENTS}/{number:08d}.jsonl"

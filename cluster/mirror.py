"""The local mirror of an experiment in an object store: what is fetched into it, and what is stored from it.

Everything above works on the mirror's paths. `.mirror.json` in it says of each file which version of the object it
is: an object that has changed since is fetched; a file that has changed since is stored by whoever holds the
experiment. The ledger is not among these files (`cluster/segments.py`), nor are checkpoints, which workers store.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.event_files import EVENTS
from cluster.lock import is_held_here
from cluster.remote import Remote, Stored, at_once, refusal, store_of
from foundation import RequestError, write_json

RECORD, FETCHING = ".mirror.json", ".mirror.lock"
CHECKPOINT, VALIDATED = "checkpoint", "val_"  # what workers store, on whatever host
MODEL = "model"  # the folder of the model that ships
APART = frozenset({"ledger", "lease", CHECKPOINT})  # folders that are not mirrored file by file
LOCAL = frozenset({"ledger.jsonl", "ledger.lock"})
STORE_SECONDS = 20.0

Version = tuple[str, int, int]  # of the object; of the file: when it was changed, in ns, and its bytes


@contextmanager
def fetching(folder: Path) -> Iterator[None]:
    """Let one process of this host at a time bring a mirror up to date; the others wait."""
    root = folder.parent
    descriptor = os.open(root / f"{FETCHING}.{folder.name}", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def fetch(folder: Path, *names: str) -> None:
    """Bring a mirror up to date: the files at its top, and those in the named folders (`""`: in all, at any depth).

    Nothing for a folder that is no mirror, or that a process of this host is writing now. Raises `RequestError` where
    the store refuses.
    """
    with store_to_fetch(folder) as store:
        if store:
            fetch_files(store, folder, names)


@contextmanager
def store_to_fetch(folder: Path) -> Iterator[Remote | None]:
    """Yield the store that a mirror is to be fetched from; None for any other folder, or one written from here now.

    Raises `RequestError` where the store refuses.
    """
    store = store_of(folder)
    if store is None:
        yield None
        return
    try:
        with fetching(folder):
            yield None if is_held_here(folder) else store
    except OSError as error:
        raise RequestError(refusal(store.url, error)) from error


def fetch_files(store: Remote, folder: Path, names: tuple[str, ...]) -> dict[str, Version]:
    """Fetch as `fetch` does, without a lock; return what `.mirror.json` then says."""
    record = _read(folder)
    there = {} if "" in names else store.objects()
    for name in names:
        there |= store.objects(name, deep=True)
    wanted = {name: stored for name, stored in there.items() if _is_mirrored(name)}
    news = [name for name, stored in wanted.items() if not _is_known(folder, name, stored, record.get(name))]
    at_once(lambda name: store.fetch(name, folder / name), news)
    for name in news:
        record[name] = (wanted[name].version, *_state(folder / name))
    gone = [name for name in record if name not in wanted and ("" in names or name.split("/")[0] in names)]
    for name in gone:
        del record[name]
        if _goes_with_others(name):  # another host has written them again, under other names, or another model
            (folder / name).unlink(missing_ok=True)
    if news or gone or "" in names:
        _write(folder, record)
    return record


def fetch_validated(folder: Path, trials: str) -> None:
    """Fetch what the trials in a folder say of the validation images; nothing for a folder that is no mirror."""
    if store := store_of(folder):
        names = [name for name in store.objects(trials, deep=True) if _is_validated(name)]
        at_once(lambda name: store.fetch(name, folder / name), names)


def fetch_checkpoint(folder: Path, trial_name: str) -> None:
    """Fetch the checkpoints that a trial has in the store, `trials/0007`; nothing for a folder that is no mirror."""
    if store := store_of(folder):
        store.fetch_tree(f"{trial_name}/{CHECKPOINT}", folder / trial_name / CHECKPOINT)


@contextmanager
def kept_fetched(folder: Path, name: str) -> Iterator[None]:
    """Fetch a folder of a mirror, and again every `STORE_SECONDS` while inside."""
    fetch(folder, name)
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(STORE_SECONDS):
            with suppress(RequestError):  # it was there a moment ago, and may be again
                fetch(folder, name)

    if store_of(folder):
        threading.Thread(target=work, name="fetch", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def store_file(path: Path, folder: Path) -> None:
    """Store one file of a mirror now; nothing for a folder that is no mirror."""
    if store := store_of(folder):
        name, state = path.relative_to(folder).as_posix(), _state(path)
        store.store(path, name)
        with fetching(folder):
            _write(folder, _read(folder) | {name: (_version(store, name), *state)})


def store_answers(folder: Path) -> bool:
    """Whether the store of a mirror can be reached now; True for any other folder."""
    if store := store_of(folder):
        store.patience_seconds = 0.0
        try:
            store.info(RECORD)
        except OSError:
            return False
    return True


class Uploader:
    """Stores the files of a mirror that have changed, every `STORE_SECONDS` and at the end.

    TensorBoard files and files of the model that it has seen and that are there no more are removed from the store as
    well: the points of the new ones would stand beside theirs, an old export beside a new model. A store that refuses
    is tried again; at the end it is an error.
    """

    def __init__(self, store: Remote, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._record = fetch_files(store, folder, ("",))
        self._seen = set(self._files())
        self._storing, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_storing, name="uploader", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Store what has changed and end; raises OSError where that fails."""
        self.stop()
        self._store_changes()

    def stop(self) -> None:
        """End without another look: the experiment may be someone else's now."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep_storing(self) -> None:
        while not self._ended.wait(STORE_SECONDS):
            with suppress(OSError):
                self._store_changes()

    def _store_changes(self) -> None:
        with self._storing:
            files = self._files()
            changed = [name for name, state in files.items() if self._record.get(name, ("", 0, 0))[1:] != state]
            for name, version in zip(changed, at_once(self._stored, changed), strict=True):
                self._record[name] = version
            gone = [name for name in self._seen - set(files) if _goes_with_others(name)]
            at_once(self.store.remove, gone)
            for name in gone:
                self._record.pop(name, None)
            self._seen = set(files)
            if changed or gone:
                _write(self.folder, self._record)

    def _stored(self, name: str) -> Version:
        state = _state(self.folder / name)  # before it is stored: what changes meanwhile is stored again
        self.store.store(self.folder / name, name)
        return (_version(self.store, name), *state)

    def _files(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        _walk(self.folder, "", lambda name, entry: found.update({name: _entry_state(entry)}))
        return {name: state for name, state in found.items() if not _is_validated(name)}


def _walk(folder: Path, below: str, found: "Callable[[str, os.DirEntry[str]], object]") -> None:
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir() and not entry.name.startswith(".") and entry.name not in APART:
                _walk(folder, f"{name}/", found)
            elif entry.is_file() and _is_mirrored(name):
                with suppress(FileNotFoundError):  # renamed or removed meanwhile
                    found(name, entry)


def _is_mirrored(name: str) -> bool:
    parts = name.split("/")
    return not (APART & set(parts)) and name not in LOCAL and not any(part.startswith(".") for part in parts)


def _goes_with_others(name: str) -> bool:
    return name.rpartition("/")[2].startswith(EVENTS) or name.startswith(f"{MODEL}/")


def _is_validated(name: str) -> bool:
    return name.rpartition("/")[2].startswith(VALIDATED)


def _is_known(folder: Path, name: str, stored: Stored, known: Version | None) -> bool:
    """Whether a file here is the object, or newer than it: changed here since, while the object has not."""
    return known is not None and known[0] == stored.version and (folder / name).exists()


def _version(store: Remote, name: str) -> str:
    stored = store.info(name)
    return stored.version if stored else ""


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _entry_state(entry: "os.DirEntry[str]") -> tuple[int, int]:
    status = entry.stat()
    return status.st_mtime_ns, status.st_size


def _read(folder: Path) -> dict[str, Version]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {name: (str(version), int(time), int(size)) for name, (version, time, size) in record.items()}
    except (OSError, ValueError):  # then everything is fetched again
        return {}


def _write(folder: Path, record: dict[str, Version]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record)

"""What a worker on any host needs of an experiment in an object store: its trial's files, fetched and stored."""

import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path

from cluster.remote import Remote, at_once, store_of
from foundation import cache_root, lives

WORK = "work"
CHECKPOINT = "checkpoint"


class TrialStore:
    """Keeps the files of one trial at a time in a folder of this process, and stores them in the experiment.

    It is handed to the workers, wherever they run; the folder is theirs alone, since a process of the same host may
    have the same trial's files open. What dead processes left is removed.
    """

    def __init__(self, store: Remote) -> None:
        self.store = store
        self.trial = ""

    @property
    def folder(self) -> Path:
        """The folder that stands for the experiment's in this process."""
        return cache_root() / WORK / f"{socket.gethostname()}.{os.getpid()}"

    def begin(self, trial: str) -> Path:
        """Fetch what a trial, `trials/0007`, has in the store but its events, and return its folder here."""
        self.clear()
        self.trial = trial
        here = self.folder / trial
        here.mkdir(parents=True, exist_ok=True)
        names = [*self.store.objects(f"{trial}/{CHECKPOINT}", deep=True), *_validated(self.store, trial)]
        at_once(lambda name: self.store.fetch(name, self.folder / name), names)
        return here

    def keep_file(self, path: Path) -> None:
        """Store one file of the trial; raises OSError where that fails."""
        self.store.store(path, path.relative_to(self.folder).as_posix())

    def keep_checkpoint(self, path: Path) -> None:
        """Store one checkpoint, its manifest last, so that one is whole or passed over; remove those gone here."""
        name = path.relative_to(self.folder).as_posix()
        for file in sorted(path.iterdir(), key=lambda file: file.name == "manifest.json"):
            self.keep_file(file)
        parent = name.rpartition("/")[0]
        for other in self.store.folders(parent):
            if not (self.folder / other).exists():
                self.store.remove_tree(other)

    def clear(self) -> None:
        """Remove what is here, and what processes of this host left that are dead."""
        shutil.rmtree(self.folder, ignore_errors=True)
        host = f"{socket.gethostname()}."
        for left in self.folder.parent.glob(f"{host}*"):
            with suppress(ValueError):
                if not lives(int(left.name.removeprefix(host))):
                    shutil.rmtree(left, ignore_errors=True)


def trial_store(folder: Path) -> TrialStore | None:
    """Return what the workers of an experiment are handed, None where its folder is no mirror."""
    store = store_of(folder)
    return TrialStore(store) if store else None


def _validated(store: Remote, trial: str) -> list[str]:
    return [name for name in store.objects(trial) if Path(name).name.startswith("val_")]

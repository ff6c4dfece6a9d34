"""Which checkpoints are kept: those of running trials, of wanted models, and of stopped trials that may be rescued."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.history import History
from cluster.record import TrialRecord, ranked
from cluster.remote import store_of
from cluster.storage import TRIALS, checkpoint_folder

CHECKPOINT = re.compile(rf"{TRIALS}/\d+/checkpoint/").match
RESCUE_CANDIDATES = 3  # the best stopped trials: their last state is kept, so `rescue` need not begin anew


class Retention:
    """Removes the checkpoints of an experiment that are of no use any more.

    What a crash left behind goes first; then each trial's when it ends, in a thread: to remove 1 MB took 13 ms, and a
    worker waited for its next trial meanwhile. The worker of a trial that ends may still be writing one: `close`, once
    all workers are gone, removes it. Of a mirror, it is the store that is looked at and tidied.
    """

    def __init__(self, folder: Path, history: History, metric: str) -> None:
        self.folder, self.history, self.metric = folder, history, metric
        self.store = store_of(folder)
        self._beside = ThreadPoolExecutor(1, "retention")
        self._sweep()
        self.wait()

    def wait(self) -> None:
        """Return when all that is to be removed so far is gone."""
        self._beside.submit(lambda: None).result()

    def close(self) -> None:
        """Look through all trials again: nothing writes any more."""
        self._sweep()
        self._beside.shutdown()

    def _sweep(self) -> None:
        self._candidates: list[TrialRecord] = []
        for path in self._there():
            record = self.history.trials.get(int(path.parent.name))
            if record is None:
                self._remove(path)
            elif not record.live:
                self.ended(record)

    def ended(self, record: TrialRecord) -> None:
        """Keep or remove the checkpoints of one trial that has ended, and of the candidate that it displaces."""
        if record.work.get("keep_checkpoint"):
            return
        if record.status != "stopped" or record.role != "search":
            self._remove(checkpoint_folder(self.folder, record.trial))
        elif self._has_checkpoint(record):
            stopped = [other for other in self._candidates if other.status == "stopped" and other is not record]
            order = ranked([*stopped, record], self.metric)
            self._candidates = order[:RESCUE_CANDIDATES]
            for worse in order[RESCUE_CANDIDATES:]:
                self._remove(checkpoint_folder(self.folder, worse.trial))

    def _there(self) -> list[Path]:
        if self.store is None:
            return sorted((self.folder / TRIALS).glob("[0-9]*/checkpoint"))
        names = {
            name.partition("/checkpoint/")[0] for name in self.store.objects(TRIALS, deep=True) if CHECKPOINT(name)
        }
        return [self.folder / name / "checkpoint" for name in sorted(names)]

    def _has_checkpoint(self, record: TrialRecord) -> bool:
        path = checkpoint_folder(self.folder, record.trial)
        return path.exists() if self.store is None else bool(self.store.folders(self._name(path)))

    def _remove(self, path: Path) -> None:
        self._beside.submit(shutil.rmtree, path, ignore_errors=True)
        if self.store:
            self._beside.submit(self.store.remove_tree, self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

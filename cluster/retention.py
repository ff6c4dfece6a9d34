"""Which checkpoints are kept: those of running trials, of wanted models, and of stopped trials that may be rescued."""

import shutil
from pathlib import Path

from cluster.history import History, TrialRecord, ranked
from cluster.storage import TRIALS, checkpoint_folder

RESCUE_CANDIDATES = 3  # the best stopped trials: their last state is kept, so `rescue` need not begin anew


class Retention:
    """Removes the checkpoints of an experiment that are of no use any more.

    What a crash left behind goes first; then each trial's when it ends. The worker of a trial that ends may still
    be writing one: `sweep`, once all workers are gone, removes it.
    """

    def __init__(self, folder: Path, history: History, metric: str) -> None:
        self.folder, self.history, self.metric = folder, history, metric
        self.sweep()

    def sweep(self) -> None:
        """Look through all trials."""
        self._candidates: list[TrialRecord] = []
        for path in sorted((self.folder / TRIALS).glob("[0-9]*/checkpoint")):
            record = self.history.trials.get(int(path.parent.name))
            if record is None:
                shutil.rmtree(path, ignore_errors=True)
            elif not record.live:
                self.ended(record)

    def ended(self, record: TrialRecord) -> None:
        """Keep or remove the checkpoints of one trial that has ended, and of the candidate that it displaces."""
        if record.work.get("keep_checkpoint"):
            return
        if record.status != "stopped" or record.role != "search":
            self._remove(record)
        elif checkpoint_folder(self.folder, record.trial).exists():
            stopped = [other for other in self._candidates if other.status == "stopped" and other is not record]
            order = ranked([*stopped, record], self.metric)
            self._candidates = order[:RESCUE_CANDIDATES]
            for worse in order[RESCUE_CANDIDATES:]:
                self._remove(worse)

    def _remove(self, record: TrialRecord) -> None:
        shutil.rmtree(checkpoint_folder(self.folder, record.trial), ignore_errors=True)

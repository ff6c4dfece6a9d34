"""The searcher and the scheduler that Ray Tune asks: they only pass the questions on to the dispatcher.

Ray calls the scheduler first, then the searcher. The trainable never sets `done`, or Ray would skip the
scheduler's `on_trial_result` and the last epoch with it.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

import ray
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cluster.connect import is_own_cluster
from cluster.dispatch import Dispatcher
from cluster.resources import Place, hosts_of

EXIT = re.compile(r"worker process has died\. Worker exit type: (\w+)")
ROOM_SECONDS = 1.0
MEMORY = re.compile(r"OutOfMemory|MemoryError|OUT_OF_MEMORY|(?:low on|not enough|can't allocate) memory")


def reason(said: str) -> str:
    """Return why a trial failed, in one sentence, from what Ray wrote about it."""
    if died := EXIT.search(said):
        return f"the worker process died ({died[1]})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "the worker process died"


class Room:
    """How many trials there may be at a time: as many as the living hosts have slots for, looked at once a second.

    One more on a cluster of others, which asks its autoscaler for a host. Trials are handed out no earlier than a
    slot is free: each knows all results before it, and Ray makes no request that a worker to reuse then cancels.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.spare = 0 if is_own_cluster() else 1
        self._until, self._count = 0.0, 1

    def count(self) -> int:
        """Return the number; at least one, since a host may still come."""
        now = time.monotonic()
        if now >= self._until:
            self._until, self._count = now + ROOM_SECONDS, max(1, self.place.room(hosts_of(ray), self.spare))
        return self._count


class SearcherHook(Searcher):
    """Hands out what the dispatcher hands out."""

    def __init__(self, dispatcher: Dispatcher, room: Room) -> None:
        super().__init__()
        self.dispatcher = dispatcher
        self.room = room

    def __getstate__(self) -> dict[str, Any]:
        """Give Ray's files nothing to keep: the dispatcher holds open files and a terminal."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial for Ray; None while others run, and FINISHED, for good, when none does.

        None with nothing running would block Ray's controller for ten minutes.
        """
        if len(self.dispatcher.running) >= self.room.count():
            return None
        work = self.dispatcher.hand_out(trial_id)
        if work is not None:
            return {"handed_out": json.dumps(work)}  # as text: Ray would walk and rename a nested configuration
        return None if self.dispatcher.running else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Let go of a trial; one that ended in an error has been passed on by the scheduler's hook."""
        self.dispatcher.finished(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing back, ever."""
        raise NotImplementedError("an experiment goes on from its ledger, never from Ray's files")


class SchedulerHook(FIFOScheduler):
    """Folds every report in and stops the trials that the dispatcher stops."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def __getstate__(self) -> dict[str, Any]:
        """Give Ray's files nothing to keep."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pass one report on; the answer is the dispatcher's."""
        goes_on = self.dispatcher.report(trial.trial_id, json.loads(result["report"]))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Pass a lost trial on, with what Ray knows of the reason."""
        said = Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
        cause = "out_of_memory" if MEMORY.search(said) else "retired" if "WorkerRetired" in said else "died"
        self.dispatcher.lost(trial.trial_id, reason(said), cause)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave the choice to Ray's controller, which starts pending trials itself.

        The inherited method scans all trials twice at every step: quadratic at 10,000 trials.
        """

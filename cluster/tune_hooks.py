"""What Ray Tune is given: a searcher and a scheduler that pass its questions on to the dispatcher, and some patches.

Ray calls the scheduler first, then the searcher. The trainable never sets `done`, or Ray would skip the
scheduler's `on_trial_result` and the last epoch with it.
"""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray.air.execution._internal import actor_manager
from ray.air.execution.resources.fixed import FixedResourceManager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune import tune as tune_run
from ray.tune.execution import class_cache, tune_controller
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.trainable import metadata

from cluster.connect import is_own_cluster
from cluster.dispatch import Dispatcher
from cluster.replacing import replaced
from cluster.resources import Host, Place, hosts_of

EXIT = re.compile(r"worker process has died\. Worker exit type: (\w+)")
ROOM_SECONDS = 1.0
MEMORY = re.compile(
    r"OutOfMemory|MemoryError|OUT_OF_MEMORY|(?:low on|not enough|can't allocate) memory|"
    r"CUDA error: out of memory|ALLOC_FAILED|unable to find an engine"  # cuBLAS's and cuDNN's, in no words of torch
)
RAISED = re.compile(r"(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Retired)(?:\(\w+\))?: .")


def reason(said: str) -> str:
    """Return why a trial failed, in one sentence, from what Ray wrote about it."""
    if died := EXIT.search(said):
        return f"the worker process died ({died[1]})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    raised = [line for line in lines if RAISED.match(line)]  # CUDA's last line is advice
    return (raised or lines)[-1][:500] if lines else "the worker process died"


def cause_of(said: str) -> str:
    """Return which of `history.LOSSES` a trial was, from what Ray wrote about it."""
    return "out_of_memory" if MEMORY.search(said) else "retired" if "WorkerRetired" in said else "died"


@contextmanager
def patched_tune() -> Iterator[None]:
    """Put right what Tune does not do as trials need it, in private parts of the pinned Ray."""
    with ExitStack() as patches:
        patches.enter_context(killed_workers_are_losses())
        patches.enter_context(free_workers_go_to_who_waits())
        patches.enter_context(nothing_is_kept_of_ended_trials())
        if is_own_cluster():
            patches.enter_context(waiting_workers_are_used())
            patches.enter_context(slots_are_counted_here())
        yield


class WorkerKilled(RayActorError):
    """A worker that Ray itself killed, mostly for want of memory."""


@contextmanager
def killed_workers_are_losses() -> Iterator[None]:
    """Let Tune take a worker that Ray's memory monitor killed for what it is: a dead worker, of one trial.

    Ray 2.60 reports it as an `OutOfMemoryError`, which is neither of the two errors that Tune's actor manager knows;
    it then ends `fit()` for all trials and names none.
    """
    manager = actor_manager.RayActorManager
    original = manager._actor_task_failed

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            said = " ".join(str(exception).split())
            exception = WorkerKilled(error_msg=f"{type(exception).__name__}: {said[:300]}")
        original(self, tracked_actor_task, exception)

    with replaced(manager, "_actor_task_failed", failed):
        yield


@contextmanager
def waiting_workers_are_used() -> Iterator[None]:
    """Let Tune start trials in the workers that Ray started with itself.

    Tune asks for some variables in a worker's environment. They are there, since Ray's processes are children of
    this one, but Ray would start another process for whoever asks: 5 s later the first batch would come.
    """
    with replaced(class_cache._ActorClassCache, "get", lambda self, trainable: ray.remote(trainable)):
        yield


@contextmanager
def slots_are_counted_here() -> Iterator[None]:
    """Let Tune count the slots of the one host itself, and not reserve each on the cluster.

    A reservation is confirmed by a task, which takes a waiting worker away: Ray gives a trial no worker that ever ran
    a task.
    """
    with replaced(tune_controller, "PlacementGroupResourceManager", FixedResourceManager):
        yield


@contextmanager
def free_workers_go_to_who_waits() -> Iterator[None]:
    """Let a worker that is free take the trial that waits for one, not a later one nor one whose worker is starting.

    Tune gives it to the newest, or else to any and ends the worker that was starting for it. One starts for 5 s, so
    while trials take less, no second one comes to life: 200 trials of 1 s on two slots all ran in one process.
    """
    original = tune_controller.TuneController._maybe_reuse_cached_actor

    def reuse(self: Any, trial: Any) -> bool:
        def waits(each: Any) -> bool:
            requested = self._trial_to_actor.get(each)
            return requested is not None and not self._actor_manager.is_actor_started(requested)

        pending = self._resources_to_pending_trials[trial.placement_group_factory]
        if trial not in self._resetting_trials and not waits(trial) and (first := next(filter(waits, pending), None)):
            original(self, first)
            return False
        return bool(original(self, trial))

    with replaced(tune_controller.TuneController, "_maybe_reuse_cached_actor", reuse):
        yield


@contextmanager
def nothing_is_kept_of_ended_trials() -> Iterator[None]:
    """Let Tune not gather what nobody asks it for: the ledger is the only state.

    It keeps mean, extremes and last values of every number in a report, and when the last trial has ended it writes the
    state of all to a file and looks for what each has logged.
    """
    with (
        replaced(metadata._TrainingRunMetadata, "update_metric", lambda *_, **__: None),
        replaced(tune_controller.TuneController, "checkpoint", lambda *_, **__: None),
        replaced(tune_run, "ExperimentAnalysis", lambda **_: SimpleNamespace(trials=[])),
    ):
        yield


def living_hosts() -> list[Host]:
    """Return the hosts that are there now."""
    return hosts_of(ray)


class Room:
    """How many trials there may be at a time: as many as the living hosts have slots for, looked at once a second.

    One more on a cluster of others, which asks its autoscaler for a host. Trials are handed out no earlier than a
    slot is free: each knows all results before it, and Ray makes no request that a worker to reuse then cancels.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.spare = 0 if is_own_cluster() else 1
        self._until, self._count = 0.0, 1

    def count(self, place: Place) -> int:
        """Return the number with the slot as it is now; at least one, since a host may still come."""
        now = time.monotonic()
        if now >= self._until or place != self.place:
            self.place = place
            self._until, self._count = now + ROOM_SECONDS, max(1, place.room(living_hosts(), self.spare))
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
        place = self.dispatcher.sharing.place or self.room.place
        if len(self.dispatcher.running) >= self.room.count(place):
            return None
        work = self.dispatcher.hand_out(trial_id)
        if work is not None:  # as text: Ray would walk and rename a nested configuration
            return {"handed_out": json.dumps(work), "slot": place.request()}
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
        self.dispatcher.lost(trial.trial_id, reason(said), cause_of(said))

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave the choice to Ray's controller, which starts pending trials itself.

        The inherited method scans all trials twice at every step: quadratic at 10,000 trials.
        """

"""What Tune does not do as trials need it, put right while they run: patches of private parts of the pinned Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.air.execution._internal import actor_manager
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController

from cluster.connect import is_own_cluster


@contextmanager
def patched_tune() -> Iterator[None]:
    """Put right what this file puts right."""
    with killed_workers_are_losses(), waiting_workers_are_used(), free_workers_go_to_who_waits():
        yield


class WorkerKilled(RayActorError):  # type: ignore[misc]
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

    manager._actor_task_failed = failed
    try:
        yield
    finally:
        manager._actor_task_failed = original


@contextmanager
def waiting_workers_are_used() -> Iterator[None]:
    """Let Tune start trials in the workers that Ray started with itself, on a cluster of our own.

    Tune asks for some variables in a worker's environment. They are there, since Ray's processes are children of
    this one, but Ray would start another process for whoever asks: 5 s later the first batch would come.
    """
    original = class_cache._ActorClassCache.get
    if is_own_cluster():
        class_cache._ActorClassCache.get = lambda self, trainable: ray.remote(trainable)
    try:
        yield
    finally:
        class_cache._ActorClassCache.get = original


@contextmanager
def free_workers_go_to_who_waits() -> Iterator[None]:
    """Let a worker that is free take the trial that waits for one, not a later one nor one whose worker is starting.

    Tune gives it to the newest, or else to any and ends the worker that was starting for it. One starts for 5 s, so
    while trials take less, no second one comes to life: 200 trials of 1 s on two slots all ran in one process.
    """
    original = TuneController._maybe_reuse_cached_actor

    def reuse(self: Any, trial: Any) -> bool:
        def waits(each: Any) -> bool:
            requested = self._trial_to_actor.get(each)
            return requested is not None and not self._actor_manager.is_actor_started(requested)

        pending = self._resources_to_pending_trials[trial.placement_group_factory]
        if trial not in self._resetting_trials and not waits(trial) and (first := next(filter(waits, pending), None)):
            original(self, first)
            return False
        return bool(original(self, trial))

    TuneController._maybe_reuse_cached_actor = reuse
    try:
        yield
    finally:
        TuneController._maybe_reuse_cached_actor = original

"""Launch trials that several workers train together, one trial after the other: the only `TorchTrainer` here.

A team is a `TorchTrainer` with its workers, started once for all trials that nothing goes wrong with. Its desk, an
actor on the driver's host, passes trials down and reports up: Ray Train's own reports are looked at every two seconds
only, and nothing can be answered to them. When the desk is killed, everything that came of it ends: so it is when one
of them falls silent, since Ray Train would ask a process that hangs to shut down, and wait for its answer for ever.
"""

import asyncio
import itertools
import json
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError
from ray.util.placement_group import get_placement_group, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.dispatch import Dispatcher
from cluster.launch import launched
from cluster.resources import Place, Slot
from cluster.silence import BEAT_SECONDS, Silence
from cluster.tune_hooks import cause_of, reason

TICK_SECONDS = 0.5  # how soon an interruption is noticed
LAST_WORDS_SECONDS = 1.0  # a report may come right behind the end of its team
END_SECONDS = 30.0  # workers that have nothing more to do end in 2 s

# Each with the reason it is not left at Ray Train's default (2.60).
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a dead worker is noticed after 2 s else
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # a minute is little where hosts are busy and torch lies on NFS
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one more process: what a lost host costs is an epoch all the same
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}

# What each worker runs: its rank, how many they are, how it gets a trial by its number, how it reports, `parameters`.
TrainTogether = Callable[[int, int, Callable[[int], str | None], Callable[[str], None], dict[str, Any]], None]


def launch_together(
    train: TrainTogether, dispatcher: Dispatcher, place: Place, workers: int, parameters: dict[str, Any]
) -> bool:
    """Run the dispatcher's trials, each by so many workers, until nothing is left; return False when interrupted.

    Ray must be connected, and have room (`Place.check_team`). Raises what made the dispatcher halt.
    """

    def fit(scratch: Path) -> None:
        keys = (f"together-{number}" for number in itertools.count())
        team: Team | None = None
        try:
            while (given := dispatcher.hand_out(key := next(keys))) is not None:
                team = team or Team(train, place.team_slot, workers, parameters, scratch)
                if not team.trains(dispatcher, key, given):
                    team.kill()
                    team = None
            if team:
                team.end()
        finally:
            if team:
                team.kill()

    return launched(dispatcher, place, fit)


class Team:
    """Workers that train one model together, seen from the driver."""

    def __init__(
        self, train: TrainTogether, slot: Slot, workers: int, parameters: dict[str, Any], scratch: Path
    ) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        threads = workers + 8  # every worker waits in one for its next trial
        remote = ray.remote(num_cpus=0, max_concurrency=threads, scheduling_strategy=here)(Desk)
        self._desk = remote.remote()
        self._name = f"convscout-{uuid4().hex}"
        self._over = self._desk.fit.remote(self._name, train, slot, workers, parameters, str(scratch))
        self._silence, self._looked = Silence(workers), time.monotonic()
        self._beats = self._desk.beats.remote()

    def trains(self, dispatcher: Dispatcher, key: str, given: dict[str, Any]) -> bool:
        """Train one trial until it ends or is lost, telling the dispatcher; return whether the team is fit for more."""
        self._desk.give.remote(json.dumps(given))
        report = self._desk.next_report.remote()  # never one too many: it would take the next trial's first report
        while not dispatcher.stopping:
            ready, _ = ray.wait([report, self._over], num_returns=1, timeout=TICK_SECONDS)
            if self._over in ready:
                ready, _ = ray.wait([report], timeout=LAST_WORDS_SECONDS)
            try:
                if report in ready:
                    said = json.loads(ray.get(report))
                    if dispatcher.report(key, said):
                        report = self._desk.next_report.remote()
                        continue
                    dispatcher.finished(key)
                    return said["kind"] != "failed" and not dispatcher.history.trials[given["trial"]].live
                if ray.wait([self._over], timeout=0)[0]:
                    error = ray.get(self._over)
                    dispatcher.lost(key, reason(error), cause_of(error))
                    return False
                if hangs := dispatcher.hung.get(key) or self._silent():
                    dispatcher.lost(key, hangs, "hung")
                    return False
            except RayError as error:
                dispatcher.lost(key, reason(str(error)), cause_of(str(error)))
                return False
        return False

    def _silent(self) -> str | None:
        """Return who of the team has been silent for too long, in a sentence; looked at every `BEAT_SECONDS`."""
        now = time.monotonic()
        if now - self._looked < BEAT_SECONDS:
            return None
        seconds, self._looked = now - self._looked, now
        if not ray.wait([self._beats], timeout=0)[0]:
            return self._silence.after(seconds, None)
        beats = ray.get(self._beats)
        self._beats = self._desk.beats.remote()
        return self._silence.after(seconds, beats)

    def end(self) -> None:
        """Let the workers end by themselves: their resources are free then."""
        self._desk.give.remote(None)
        ray.wait([self._over], timeout=END_SECONDS)

    def kill(self) -> None:
        """End everything that came of this team, at once; its workers' resources are free then."""
        ray.kill(self._desk)
        with suppress(ValueError):  # there is none: the team had ended, or not begun
            remove_placement_group(get_placement_group(self._name))


class Desk:
    """An actor that runs a `TorchTrainer` in a thread, and passes on what its workers and the driver have to say."""

    def __init__(self) -> None:
        self._given: list[str | None] = []
        self._changed = threading.Condition()
        self._reports: queue.Queue[str] = queue.Queue()
        self._beats: Counter[int] = Counter()

    def fit(
        self, name: str, train: TrainTogether, slot: Slot, workers: int, parameters: dict[str, Any], scratch: str
    ) -> str:
        """Train what is given until that is None; return what went wrong, or nothing."""
        os.environ.update(ENVIRONMENT)
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError

        desk = ray.get_runtime_context().current_actor
        trainer = _trainer_of_one_process(name)(
            _work,
            train_loop_config={"train": train, "desk": desk, "parameters": parameters},
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=slot.gpus > 0,
                resources_per_worker={"CPU": slot.cpus, **({"GPU": slot.gpus} if slot.gpus else {})},
            ),
            run_config=RunConfig(
                name=name,  # a name that was there before would be gone on with, silently
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            failures = getattr(error, "worker_failures", {0: error})
            return "\n".join(str(failure) for failure in failures.values())
        return ""

    def give(self, work: str | None) -> None:
        """Give the workers their next trial; None: there is none."""
        with self._changed:
            self._given.append(work)
            self._changed.notify_all()

    def take(self, number: int) -> str | None:
        """Return what was given as number so-and-so, counted from 0; waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._given) > number)
            return self._given[number]

    def report(self, said: str) -> None:
        """Take a report for the driver."""
        self._reports.put(said)

    def next_report(self) -> str:
        """Return the oldest report that was not returned yet; waits for one."""
        return self._reports.get()

    def beat(self, rank: int) -> None:
        """Note that a worker lives."""
        self._beats[rank] += 1

    def beats(self) -> dict[int, int]:
        """Return how often each worker has said that it lives."""
        return dict(self._beats)


def _trainer_of_one_process(name: str) -> Any:
    """Return `TorchTrainer` as it is, but that its controller runs in this process, which must be the desk's.

    Ray starts two more processes, of the controller and of one that frees the workers' resources where that was
    killed, one after the other: 4.6 s of a core each, mostly imports. Here the resources get a name, by which the
    driver frees them: Ray itself does so only when the whole job has ended.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.worker_group import worker_group

    worker_group.placement_group = partial(placement_group, name=name)

    class Trainer(TorchTrainer):
        def _create_default_callbacks(self) -> list[Any]:
            found = super()._create_default_callbacks()
            return [each for each in found if not isinstance(each, PlacementGroupCleanerCallback)]

        def _initialize_and_run_controller(self, **given: Any) -> Any:
            controller = TrainController(**given)
            asyncio.run(controller.run())
            return controller.get_result()

    return Trainer


def _work(given: dict[str, Any]) -> None:
    """Be one of the workers."""
    from ray.train import get_context

    desk, context = given["desk"], get_context()
    rank, ended = context.get_world_rank(), threading.Event()

    def beat() -> None:
        desk.beat.remote(rank)
        while not ended.wait(BEAT_SECONDS):
            desk.beat.remote(rank)

    threading.Thread(target=beat, name="beat", daemon=True).start()
    try:
        given["train"](
            rank,
            context.get_world_size(),
            lambda number: ray.get(desk.take.remote(number)),
            lambda said: ray.get(desk.report.remote(said)),
            given["parameters"],
        )
    finally:
        ended.set()

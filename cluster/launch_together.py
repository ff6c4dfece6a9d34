"""Launch trials that several workers train together, one trial after the other: the only `TorchTrainer` here.

A team is a `TorchTrainer` with its workers, started once for all trials that nothing goes wrong with. Its desk, an
actor on the driver's host, passes trials down and reports up: Ray Train's own reports are looked at every two seconds
only, and nothing can be answered to them. When the desk is killed, everything that came of it ends.
"""

import itertools
import json
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.dispatch import Dispatcher
from cluster.launch import launched
from cluster.resources import Place, Slot
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
        self._over = self._desk.fit.remote(train, slot, workers, parameters, str(scratch))

    def trains(self, dispatcher: Dispatcher, key: str, given: dict[str, Any]) -> bool:
        """Train one trial until it ends or is lost, telling the dispatcher; return whether the team is fit for more."""
        self._desk.give.remote(json.dumps(given))
        report = self._desk.next_report.remote()
        while not dispatcher.stopping:
            ready, _ = ray.wait([report, self._over], num_returns=1, timeout=TICK_SECONDS)
            if self._over in ready:
                ready, _ = ray.wait([report], timeout=LAST_WORDS_SECONDS)
            try:
                if report in ready:
                    said = json.loads(ray.get(report))
                    report = self._desk.next_report.remote()
                    if dispatcher.report(key, said):
                        continue
                    dispatcher.finished(key)
                    return said["kind"] != "failed" and not dispatcher.history.trials[given["trial"]].live
                if ray.wait([self._over], timeout=0)[0]:
                    error = ray.get(self._over)
                    dispatcher.lost(key, reason(error), cause_of(error))
                    return False
            except RayError as error:
                dispatcher.lost(key, reason(str(error)), cause_of(str(error)))
                return False
        return False

    def end(self) -> None:
        """Let the workers end by themselves: their resources are free then."""
        self._desk.give.remote(None)
        ray.wait([self._over], timeout=END_SECONDS)

    def kill(self) -> None:
        """End everything that came of this team, at once."""
        ray.kill(self._desk)


class Desk:
    """An actor that runs a `TorchTrainer` in a thread, and passes on what its workers and the driver have to say."""

    def __init__(self) -> None:
        self._given: list[str | None] = []
        self._changed = threading.Condition()
        self._reports: queue.Queue[str] = queue.Queue()

    def fit(self, train: TrainTogether, slot: Slot, workers: int, parameters: dict[str, Any], scratch: str) -> str:
        """Train what is given until that is None; return what went wrong, or nothing."""
        os.environ.update(ENVIRONMENT)
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        desk = ray.get_runtime_context().current_actor
        trainer = TorchTrainer(
            _work,
            train_loop_config={"train": train, "desk": desk, "parameters": parameters},
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=slot.gpus > 0,
                resources_per_worker={"CPU": slot.cpus, **({"GPU": slot.gpus} if slot.gpus else {})},
            ),
            run_config=RunConfig(
                name=desk._actor_id.hex(),  # a name that was there before would be gone on with, silently
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


def _work(given: dict[str, Any]) -> None:
    """Be one of the workers."""
    from ray.train import get_context

    desk, context = given["desk"], get_context()
    given["train"](
        context.get_world_rank(),
        context.get_world_size(),
        lambda number: ray.get(desk.take.remote(number)),
        lambda said: ray.get(desk.report.remote(said)),
        given["parameters"],
    )

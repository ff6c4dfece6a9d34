"""A large cluster on paper: Ray's own trial controller and actor manager, with workers that answer without training.

What is made up is Ray below them: starting a worker, calling it, and waiting for it. Calls take simulated time, and so
does what the driver itself does meanwhile (the processor time of its main thread, and what it waits for the disk), so
a report that comes while it is busy waits for its turn.
"""

import heapq
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from launches import epoch_row, handed_out

START_SECONDS = 5.0  # a worker's process, its imports, and the images that it maps
BUILD_SECONDS = 0.3  # its model, until the report that a trial has begun
DIVERGED, DIED = 0.002, 0.0005  # the share of epochs that end so


@dataclass
class Clock:
    """Simulated seconds, which the driver's own work moves on."""

    now: float = 0.0
    idle: float = 0.0
    disk: float = 0.0  # of the seconds in which the driver was busy, those in which it waited for the disk
    _cpu: float = 0.0
    _disk: float = 0.0

    def work(self) -> float:
        """Take in what the driver has done since the last rest; return the time."""
        cpu, disk = time.thread_time(), self._disk
        self.now += cpu - self._cpu + disk
        self.disk += disk
        self._cpu, self._disk = cpu, 0.0
        return self.now

    def rest(self, until: float) -> None:
        """Let the driver wait till then; what the simulation itself costs does not count."""
        self.idle += max(0.0, until - self.now)
        self.now = max(self.now, until)
        self._cpu = time.thread_time()

    @contextmanager
    def disk_counts(self) -> Iterator[None]:
        """Let the time in which the disk is waited for count as work."""
        original = os.fsync

        def fsync(file: int) -> None:
            wall, cpu = time.perf_counter(), time.thread_time()
            original(file)
            self._disk += max(0.0, time.perf_counter() - wall - time.thread_time() + cpu)

        os.fsync = fsync
        try:
            yield
        finally:
            os.fsync = original


@dataclass(eq=False)
class Future:
    """What a call of a worker will give, and when."""

    worker: "Worker"
    at: float
    value: Any


@dataclass(frozen=True)
class Method:
    """A method of a worker, as Ray's handles have them."""

    worker: "Worker"
    name: str

    def remote(self, *arguments: Any, **_: Any) -> Future:
        """Call it; the answer comes after simulated time."""
        return self.worker.cluster.call(self.worker, self.name, arguments)


class Worker:
    """A worker process with the calls of our trainable, answered by a made-up learning curve."""

    def __init__(self, cluster: "SimulatedRay", config: dict[str, Any]) -> None:
        self.cluster = cluster
        self.chance = random.Random(cluster.workers)
        self.free_since: float | None = None
        self.taken_at = 0.0
        cluster.workers += 1
        self._begin(config)

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    def _begin(self, config: dict[str, Any]) -> None:
        self.given, self.epoch = handed_out(config), 0
        self.luck = random.Random(self.given["seed"])
        self.reaches = _reached(self.given["config"], self.luck)

    def answer(self, name: str, arguments: tuple[Any, ...]) -> tuple[float, Any]:
        """Return how many seconds a call takes, and what it gives."""
        if name == "train":
            return self._train()
        if name == "reset":
            self._begin(arguments[0])
        return (START_SECONDS if name == "__ray_ready__" else 0.0), name == "reset"

    def _train(self) -> tuple[float, Any]:
        attempt = {"attempt": self.given["attempt"]}
        if self.epoch == 0:
            self.cluster.begins(self)
            report: dict[str, Any] = {"kind": "started", "host": "host", "pid": 1, "epochs": [], **attempt}
            report |= {
                "start_from": None,
                "n_params": 1,
                "micro_batch_divisor": 1,
                "damaged": [],
                "device": "simulated",
            }
            seconds = BUILD_SECONDS
        else:
            seconds = self.cluster.epoch_seconds * self.chance.uniform(0.8, 1.2)
            if self.chance.random() < self.cluster.died:
                return seconds, self.cluster.death("worker process has died. Worker exit type: SYSTEM_ERROR")
            accuracy = self.reaches * (1 - math.exp(-self.epoch / 4)) + self.luck.gauss(0, 0.01)
            row = epoch_row(self.epoch, seconds) | {"val_accuracy": accuracy, "val_loss": 2.3 - 2 * accuracy}
            report = {"kind": "epoch", "epoch": row, **attempt}
            if self.luck.random() < DIVERGED:
                report["failed"] = {"status": "diverged", "error": "the loss is no number"}
        self.epoch += 1
        return seconds, {"report": json.dumps(report)}


def _reached(config: dict[str, Any], luck: random.Random) -> float:
    """Return the accuracy that a configuration tends to: best at a learning rate of 1e-3, and somewhat by chance."""
    return max(0.1, 0.8 - 0.15 * (math.log10(config["learning_rate"]) + 3) ** 2 + luck.gauss(0, 0.05))


class SimulatedRay:
    """Takes the place of `ray` where Ray's actor manager waits for workers and reads their answers.

    `death` makes the error of a call whose worker died. `waits` has, of each trial that followed another on its worker:
    the trials begun before it, the seconds from the report that ended the other one until this one was called, and
    those of them that the driver had the report.
    """

    def __init__(
        self, clock: Clock, epoch_seconds: float, death: Callable[[str], Exception], died: float = DIED
    ) -> None:
        self.clock, self.epoch_seconds, self.death, self.died = clock, epoch_seconds, death, died
        self.workers = self.reports = self.begun = self.most_workers = 0
        self.waits: list[tuple[int, float, float]] = []
        self.on_report: Callable[[], None] = lambda: None
        self._queue: list[tuple[float, int, Future]] = []
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        import ray

        return getattr(ray, name)

    def call(self, worker: Worker, name: str, arguments: tuple[Any, ...]) -> Future:
        """Begin a call."""
        now = self.clock.work()
        seconds, value = worker.answer(name, arguments)
        future = Future(worker, now + seconds, value)
        self._calls += 1
        heapq.heappush(self._queue, (future.at, self._calls, future))
        self.clock.rest(now)
        return future

    def begins(self, worker: Worker) -> None:
        """Note that a trial begins on a worker."""
        if worker.free_since is not None:
            now = self.clock.now
            self.waits.append((self.begun, now - worker.free_since, now - worker.taken_at))
        self.begun += 1

    def wait(self, futures: Sequence[Future], num_returns: int, timeout: float) -> tuple[list[Future], list[Future]]:
        """Return the answer that comes next; the timeout is not kept to, since the driver would only look around."""
        now, known = self.clock.work(), set(futures)
        while self._queue and self._queue[0][2] not in known:
            heapq.heappop(self._queue)  # nobody waits for it any more
        if not self._queue:
            self.clock.rest(now + timeout)
            return [], []
        self.clock.rest(self._queue[0][0])
        return [heapq.heappop(self._queue)[2]], []

    def get(self, future: Future) -> Any:
        """Return the answer of a call, or raise what its worker died of."""
        if isinstance(future.value, Exception):
            raise future.value
        if isinstance(future.value, dict):
            self.reports += 1
            future.worker.free_since, future.worker.taken_at = future.at, self.clock.now
            self.on_report()
            self.clock.rest(self.clock.now)
        return future.value

    def kill(self, worker: Worker) -> None:
        """End a worker."""

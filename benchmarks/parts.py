"""Where the time of a simulated cluster's driver goes: by part of it, and as the trials become more."""

import gc
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from simulated import SimulatedRay

MARK_TRIALS = 10
Mark = tuple[int, int, float, float]  # trials begun, reports, processor seconds, seconds of waiting for the disk


class Parts:
    """The processor time of parts of the driver, by name; of collecting garbage, whichever part it came in: the seconds
    of each time; and, every ten trials, how far the cluster was and what that had taken."""

    def __init__(self, cluster: SimulatedRay) -> None:
        self.cluster = cluster
        self.seconds: dict[str, float] = {}
        self.garbage_seconds: list[float] = []
        self.marks: list[Mark] = []

    def mark(self) -> None:
        """Note how far the cluster is, when it has begun another ten trials."""
        cluster, clock = self.cluster, self.cluster.clock
        if cluster.begun >= MARK_TRIALS * (len(self.marks) + 1):
            self.marks.append((cluster.begun, cluster.reports, clock.now - clock.idle - clock.disk, clock.disk))

    @contextmanager
    def garbage_counts(self) -> Iterator[None]:
        """Count the time in which Python collects garbage in this thread."""
        thread, began = threading.get_ident(), 0.0

        def collects(phase: str, _: dict[str, int]) -> None:
            nonlocal began
            if threading.get_ident() != thread:
                return
            if phase == "start":
                began = time.thread_time()
            else:
                self.garbage_seconds.append(time.thread_time() - began)

        gc.callbacks.append(collects)
        try:
            yield
        finally:
            gc.callbacks.remove(collects)

    def time(self, owner: Any, method: str, name: str) -> None:
        """Count the time of a method of one object from now on."""
        original = getattr(owner, method)

        def timed(*arguments: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return original(*arguments, **options)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - began

        setattr(owner, method, timed)


def quarters(marks: Sequence[Mark]) -> Iterator[tuple[float, float]]:
    """Yield the reports a processor second, and the ms of it a trial, of each quarter of the trials."""
    upto = sorted({len(marks) * part // 4 for part in (1, 2, 3, 4)})
    ends: list[Mark] = [(0, 0, 0.0, 0.0), *(marks[number - 1] for number in upto if number)]
    for before, after in pairwise(ends):
        begun, reports, seconds, _ = (b - a for a, b in zip(before, after, strict=True))
        yield reports / seconds, 1000 * seconds / begun

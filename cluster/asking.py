"""What hosts of a cluster are asked one by one: its head, this one, and whichever has room for a trial first."""

import errno
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from cluster.connect import HOST_SECONDS, connect, is_own_cluster, named_hosts
from cluster.resources import Slot

LOOK_SECONDS = 0.5  # between looks whether a host that has not answered is still wanted


def room_comes(slot: Slot, seconds: float) -> bool:
    """Return whether a host has room for a trial within so many seconds; asking is what an autoscaler acts on."""
    import ray

    def nothing() -> None: ...

    waiting = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus, max_retries=3)(nothing).remote()
    ready, _ = ray.wait([waiting], timeout=seconds)
    if not ready:
        ray.cancel(waiting, force=True)
    return bool(ready)


def requested(config: Mapping[str, Any]) -> Any:
    """Return what Ray Tune asks for a trial of this configuration: the slot with which it was handed out, on none of
    the hosts that could not get what trials need.

    Every worker imports it: `cluster.tune_hooks` would take another 0.15 s.
    """
    return _request(config["slot"])


@lru_cache(64)
def _request(slot: str) -> Any:
    """Return one object for all trials that ask for the same: Ray keeps it with each."""
    from ray.tune import PlacementGroupFactory

    asked = json.loads(slot)
    names = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}
    bundle = {names[name]: number for name, number in asked["slot"].items()}
    if not asked["not_on"]:
        return PlacementGroupFactory([bundle])
    elsewhere = {"ray.io/node-id": f"!in({','.join(asked['not_on'])})"}
    return PlacementGroupFactory([bundle], bundle_label_selector=[elsewhere])


def on_head(function: Callable[..., Any], *arguments: Any, seconds: float = HOST_SECONDS) -> Any:
    """Return what `function(*arguments)` gives on the head of the cluster; raises what it raises, or `TimeoutError`."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    heads = [node["NodeID"] for node in ray.nodes() if node["Alive"] and "node:__internal_head__" in node["Resources"]]
    there = NodeAffinitySchedulingStrategy(heads[0], soft=False)
    remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)
    return ray.get(remote.remote(*arguments), timeout=seconds)


def listening() -> list[tuple[str, str, int]]:
    """Return each living host's name, and the address and port where other hosts fetch from it."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    return [(each["NodeManagerHostname"], each["NodeManagerAddress"], each["ObjectManagerPort"]) for each in nodes]


class _Server:
    """Answers from the process that it lives in, and keeps the last answers where all hosts can fetch them."""

    def __init__(self, function: Callable[..., Any], kept: int) -> None:
        self.function, self.kept = function, kept
        self.answers: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def answer(self, *arguments: Any) -> list[Any]:
        """Return a reference to what the function gives; in a list, or Ray would send the answer itself."""
        import ray

        if arguments not in self.answers:
            self.answers[arguments] = ray.put(self.function(*arguments))
        self.answers.move_to_end(arguments)
        if len(self.answers) > self.kept:
            self.answers.popitem(last=False)
        return [self.answers[arguments]]


class Served:
    """A function of one host that can be called on any; raises `OSError` where there is no answer."""

    def __init__(self, server: Any, seconds: float) -> None:
        self.server, self.seconds = server, seconds

    def __call__(self, *arguments: Any) -> Any:
        """Return the answer; an array in it lies in shared memory, read-only."""
        import ray

        try:
            [reference] = ray.get(self.server.answer.remote(*arguments), timeout=self.seconds)
            return ray.get(reference, timeout=self.seconds)
        except ray.exceptions.RayTaskError as error:
            raise OSError(errno.EIO, str(getattr(error.cause, "strerror", None) or error.cause)) from error
        except ray.exceptions.GetTimeoutError as error:
            raise OSError(errno.EIO, f"no answer from the driver's host within {self.seconds:g} s") from error
        except ray.exceptions.RayError as error:
            raise OSError(errno.EIO, " ".join(str(error).split())[:300]) from error


def served(function: Callable[..., Any], *, kept: int, seconds: float) -> Served:
    """Return a function that gives on any host what `function` gives on this one, as long as this process lives.

    It takes no core from trials. The last `kept` answers stay in this host's shared memory: hosts that ask for the same
    at about the same time get them from one another. An answer takes at most so many seconds.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(_Server)
    return Served(remote.remote(function, kept), seconds)


class _Runner:
    """Runs what it is given on the host where it lives."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


class Helper:
    """Another host that runs what it is asked to, in a process of its own with so many of its cores."""

    def __init__(self, name: str, cores: int, runner: Any) -> None:
        self.name, self.cores = name, cores
        self._runner, self._answered, self._ended = runner, False, threading.Event()
        self._asked_since = time.monotonic()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of a module gives there; many threads may ask at once.

        Raises what the function raises, and `ConnectionError` where the host is gone, has been let go, or has not given
        its first answer within `HOST_SECONDS`. There is no other limit: who does not need the answer any more calls
        `end`.
        """
        import ray

        if self._ended.is_set():  # its process may live on for a moment
            raise ConnectionError("it has been let go")
        reference = self._runner.run.remote(function, *arguments)
        while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
            if self._ended.is_set():
                raise ConnectionError("it has been let go")
            if not self._answered and time.monotonic() - self._asked_since > HOST_SECONDS:
                raise ConnectionError(f"no process answered there within {HOST_SECONDS:g} s")
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause or error from None
        except ray.exceptions.RayError as error:
            raise ConnectionError(str(error)) from error
        self._answered = True
        return answer

    def end(self) -> None:
        """Let the host go: its cores are free again, and nobody waits for its answers any more."""
        import ray

        self._ended.set()
        ray.kill(self._runner)


@contextmanager
def helpers(address: str | None, *, most: int, at_once: int) -> Iterator[list[Helper]]:
    """Yield the other hosts of a cluster that have free cores, those with most first; each takes `at_once` calls.

    It is connected to if need be, and stays so. The cores are taken from trials and given back at the end, so the hosts
    of a cluster that others use are asked for no more than they have to spare. Raises `RequestError` as `connect`.
    """
    ray = connect(address)
    from ray._private.state import available_resources_per_node
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    free = {node: int(has.get("CPU", 0)) for node, has in available_resources_per_node().items()}
    names = {} if is_own_cluster() else {node: name for node, name in named_hosts().items() if node != here}
    found: list[Helper] = []
    try:
        for node in sorted(names, key=lambda node: -free.get(node, 0))[:most]:
            if cores := free.get(node, 0):
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                remote = ray.remote(num_cpus=cores, max_concurrency=at_once, scheduling_strategy=there)(_Runner)
                found.append(Helper(names[node], cores, remote.remote()))
        yield found
    finally:
        for each in found:
            each.end()

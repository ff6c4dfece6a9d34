"""What hosts of a cluster are asked one by one: its head, this one, and whichever has room for a trial first."""

import errno
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from cluster.connect import HOST_SECONDS
from cluster.resources import Slot


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
    from ray.tune import PlacementGroupFactory

    asked = json.loads(config["slot"])
    if not asked["not_on"]:
        return asked["slot"]
    names = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}
    bundle = {names[name]: number for name, number in asked["slot"].items()}
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

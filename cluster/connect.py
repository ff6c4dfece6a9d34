"""Join a Ray cluster or start one here, with every switch Ray reads from the environment set in one place."""

import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from typing import Any

from cluster.access import ANSWER_SECONDS, address_here, authenticate, default_address
from cluster.garbage import nothing_is_collected
from cluster.replacing import replaced
from cluster.resources import Slot, of_kind
from foundation import RequestError

HOST_SECONDS = 60.0  # a host's first process starts in some 5 s, with torch in 15
LOOK_SECONDS = 0.02  # Ray itself looks for a host that it has started once a second
_LEFT_OUT = ("start_api_server", "start_monitor", "start_log_monitor")
REMEDY = "Start a cluster with `ray start --head`, or leave --address out to use this machine alone"

# Each with the reason it is not left at Ray's default (2.60).
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves the user's machine unasked
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; our workers take their device from the slot
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # launch() handles Ctrl-C, or fit() would return as if all were done
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the ledger and our TensorBoard events replace them
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the ledger has them
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # Ray sees no metrics: our hooks decide
    "PL_DISABLE_FORK": "1",  # Tune wants it in its workers
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a banner even when told to be silent
}

# For a cluster of our own, which runs nothing but trials.
LOCAL = {
    "RAY_AUTH_MODE": "disabled",  # or its start writes ~/.ray/auth_token; for a cluster of others, its head says it
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # nobody will start another head at the same place; Ray waits 60 s
    # Workers begin to import while Ray still starts: the first batch comes 4 s earlier.
    "RAY_preload_python_modules": "trainables.worker",
}

_joined: list[Any] = []  # what made this machine a part of a cluster of others


def connect(address: str | None = None) -> Any:
    """Return the `ray` module, connected: to the cluster at `address`, or to a new one on this machine.

    A driver that is already connected stays so, and one that runs as a job joins its own cluster (`RAY_ADDRESS`), one
    on a head made by `ray up` that head's. A machine that is no part of the cluster joins it for as long as it is
    connected, without resources. Raises `RequestError` when nothing answers at `address`, it does not let us in, or
    it runs another version.
    """
    address = address or default_address()
    if address != "local":
        address = address_here() if address == "auto" else address
        _check_answers(address)
        _set_authentication(authenticate(address))
    for name, value in (ENVIRONMENT | (LOCAL if address == "local" else {})).items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings(), nothing_is_collected():
        warnings.simplefilter("ignore")
        import ray
        import ray._private.worker

        ray._private.worker.print_to_stdstream = _print_nothing
        if ray.is_initialized():
            return ray
        try:
            with _nothing_but_trials() if address == "local" else nullcontext():
                if address != "local":
                    _join(address)
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RequestError(f"--address {address}: {str(error).strip()}. {REMEDY}") from error
    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong is in the ledger, and on the terminal
    return ray


@contextmanager
def _nothing_but_trials() -> Iterator[None]:
    """Start a cluster without dashboard, autoscaler and log monitor, and notice as soon as it runs.

    Each of them is a Python process of 80 MB, and Ray waits for the first even where it is told to include none: it
    starts in 2.6 s without them, in 4.7 s with them. Ray's first look for the new host comes too early and the next a
    second later: 0.4 s were lost in the mean of eight starts.
    """
    from ray._private import services
    from ray._private.node import Node

    with ExitStack() as meanwhile:
        for name in _LEFT_OUT:
            meanwhile.enter_context(replaced(Node, name, lambda *_, **__: None))
        meanwhile.enter_context(replaced(services, "get_node", partial(_found_soon, services.get_node)))
        yield


def _found_soon(get_node: Callable[[str, str], Any], address: str, node: str) -> Any:
    """Return what Ray's `get_node` finds, asked as soon as the cluster knows the host, or after `ANSWER_SECONDS`."""
    raylet: Any = import_module("ray._raylet")
    client = raylet.GcsClient(address=address)
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end and all(
        each.hex() != node for each in client.get_all_node_info(timeout=ANSWER_SECONDS)
    ):
        time.sleep(LOOK_SECONDS)
    return get_node(address, node)


def _print_nothing(*_: Any, **__: Any) -> None:
    """Take the place of what prints Ray's own notes on standard output, log_to_driver or not, among our tables."""


def _set_authentication(mode: str) -> None:
    """Let Ray use the cluster's mode; `RequestError` in a process that imported Ray earlier, with another."""
    before, os.environ["RAY_AUTH_MODE"] = os.environ.get("RAY_AUTH_MODE"), mode
    if "ray._raylet" in sys.modules:
        raylet: Any = import_module("ray._raylet")
        if raylet.get_authentication_mode() != getattr(raylet.AuthenticationMode, mode.upper()):
            raise RequestError(
                f"RAY_AUTH_MODE is {before or 'not set'}, and Ray was imported before the cluster was asked: it needs "
                f"RAY_AUTH_MODE={mode} in the environment from the start"
            )


def _join(address: str) -> None:
    """Make this machine a part of the cluster, without resources, where it is none: Ray needs a raylet beside a driver.

    It ends with this process. Without it Ray gives up after 60 s.
    """
    from ray._private import ray_constants, services
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    raylet: Any = import_module("ray._raylet")
    known = {node.hex() for node in raylet.GcsClient(address=address).get_all_node_info(timeout=ANSWER_SECONDS)}
    if known & set(services.find_node_ids()):
        return
    here = services.node_ip_address_from_perspective(address)
    joined = RayParams(
        gcs_address=address,
        node_ip_address=here,
        num_cpus=0,
        num_gpus=0,
        object_store_memory=ray_constants.OBJECT_STORE_MINIMUM_MEMORY_BYTES,
        include_log_monitor=False,
    )
    _joined.append(Node(joined, head=False, shutdown_at_exit=True, spawn_reaper=True))


def _check_answers(address: str) -> None:
    """Raise `RequestError` unless something listens at HOST:PORT; Ray itself would try for more than ten minutes."""
    if "://" in address:
        raise RequestError(
            f"--address {address}: Ray's client cannot run a search. Give the head's HOST:PORT, mostly port 6379; from "
            "where the cluster's ports cannot be reached, `convscout submit` runs it on the head"
        )
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise RequestError(f"--address {address}: write HOST:PORT, such as 10.0.0.1:6379, or auto. {REMEDY}")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise RequestError(f"--address {address}: nothing answers there ({error}). {REMEDY}") from error


def run_in_slot(function: Callable[..., Any], slot: Slot, *arguments: Any, **options: Any) -> Any:
    """Return what `function(*arguments, **options)` gives in a process that has what a trial has.

    That is this one on a cluster of our own without GPUs; else a worker, which then takes no trial any more.
    """
    import ray

    if is_own_cluster() and not slot.gpus:
        return function(*arguments, **options)
    remote = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus, max_retries=0)(function)
    return ray.get(remote.remote(*arguments, **options))


def run_on_kind(function: Callable[..., Any], kind: str, slot: Slot, *arguments: Any, **options: Any) -> Any:
    """Return what `function(*arguments, **options)` gives in a process with a slot on a host with this kind of GPU.

    The process ends afterwards, and with it what it took of the GPU.
    """
    import ray

    asked = {"num_cpus": slot.cpus, "num_gpus": slot.gpus, "resources": of_kind(kind), "max_retries": 0, "max_calls": 1}
    return ray.get(ray.remote(**asked)(function).remote(*arguments, **options))


def run_in_slots(function: Callable[..., Any], slot: Slot, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return what `function(*call)` gives for each call, all at the same time, each in a worker as a trial has it."""
    import ray

    remote = ray.remote(num_cpus=slot.cpus, num_gpus=slot.gpus, max_retries=0)(function)
    found: list[Any] = ray.get([remote.remote(*call) for call in calls])
    return found


def on_every_host(function: Callable[..., Any], *arguments: Any, seconds: float = HOST_SECONDS) -> dict[str, Any]:
    """Return what `function(*arguments)` gives on each living host, all at the same time, by the host's name.

    It takes no core from trials. Where it raised, or gave nothing within so many seconds, the error is in its place.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node, name in named_hosts().items():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)
        asked[name] = remote.remote(*arguments)
    answered, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    return {name: _answer(ray, reference, reference in answered, seconds) for name, reference in asked.items()}


def named_hosts() -> dict[str, str]:
    """Return the name of each living host by Ray's id of it; hosts of equal names are told apart by their addresses."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    names = Counter(node["NodeManagerHostname"] for node in nodes)
    found = {}
    for node in nodes:
        name, at = str(node["NodeManagerHostname"]), f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"
        found[str(node["NodeID"])] = name if names[name] == 1 else f"{name} ({at})"
    return found


def _answer(ray: Any, reference: Any, answered: bool, seconds: float) -> Any:
    if not answered:
        ray.cancel(reference, force=True)
        return TimeoutError(f"no answer within {seconds:g} s")
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return ConnectionError(" ".join(str(error).split())[:300])


def import_beside(*modules: str) -> None:
    """Import modules in a thread of its own, while this process waits for others.

    What cannot be imported is whoever's who imports it for use.
    """

    def work() -> None:
        with suppress(Exception), nothing_is_collected():
            for module in modules:
                import_module(module)

    threading.Thread(target=work, name="import", daemon=True).start()


def end_process(node: str, pid: int) -> None:
    """Kill a process of the cluster, on the host that Ray knows as `node`; one that is gone already needs no more.

    Hosts are not told apart by their names: machines made from one image may share theirs.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if node == ray.get_runtime_context().get_node_id():
        _kill(pid)
    elif any(each["Alive"] and each["NodeID"] == node for each in ray.nodes()):
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_kill).remote(pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_own_cluster() -> bool:
    """Whether the cluster that this process is connected to was started by it, and ends with it."""
    import ray._private.worker

    node = ray._private.worker.global_worker.node
    return node is not None and bool(node.is_head())


def disconnect() -> None:
    """Leave the cluster; a session that `connect` started here ends with all its processes."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    while _joined:
        _joined.pop().kill_all_processes(check_alive=False, allow_graceful=True)

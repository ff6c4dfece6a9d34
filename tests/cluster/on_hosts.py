"""What tests on several hosts share: how a cluster is started there, a small search, and what its ledger says."""

import shlex
import time
from collections.abc import Callable
from typing import Any

from hosts import Hosts

TOKEN = "0123456789abcdef0123456789abcdef"
WITH_TOKEN = f"mkdir -p ~/.ray; echo {TOKEN} > ~/.ray/auth_token; export RAY_AUTH_MODE=token;"
SPACE = "batch_size: 16\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"


def wait_for(condition: Callable[[], Any], seconds: float = 300.0, process: Any = None) -> Any:
    """Return the first true value of a condition."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert process is None or process.poll() is None, "the command ended before"
        assert time.monotonic() < end, f"nothing of that within {seconds:.0f} s"
        time.sleep(0.5)
    return value


def asked(hosts: Hosts, *more: str, name: str = "x", trials: int = 4, epochs: int = 9) -> str:
    """Return the arguments of a small search as a command line has them."""
    budget = ("--trials", str(trials), "--epochs", str(epochs), "--precision", "fp32", "--checkpoint-every", "0.2s")
    where = ("--name", name, "--storage", str(hosts.shared / "all runs"), "--space", str(hosts.shared / "space.yaml"))
    return shlex.join(["search", "digits", "--arch", "cnn", "--method", "random", *budget, *where, *more])


def start_by_hand(hosts: Hosts, *workers_too: str, before: str = "") -> None:
    """Start a cluster without an autoscaler, which would bring back what a test kills; `before` runs on the workers."""
    hosts.run("head", f"{WITH_TOKEN} ray start --head --port=6379 --num-cpus=0 --include-dashboard=false")
    for name in workers_too:
        join(hosts, name, before)


def join(hosts: Hosts, name: str, before: str = "", ray: str = "ray") -> None:
    """Make a host a part of the cluster that `start_by_hand` started; `ray` is the command of its Ray.

    Ray gives a raylet 30 s to start, and no more: on a busy machine it is tried again.
    """
    start = f"{ray} start --address={hosts.address['head']}:6379 --num-cpus=1"
    again = f"for try in 1 2 3 4; do {start} > ~/start.log 2>&1 && exit; grep -q 'timed out during startup' ~/start.log"
    hosts.run(name, f"{WITH_TOKEN} {before} {again} || break; done; cat ~/start.log; exit 1", timeout=500)


def workers(hosts: Hosts) -> int:
    """Return how many living hosts take trials, as the head knows them; -1 where it cannot be asked."""
    script = "import sys; from cluster.connect import connect; from cluster.resources import hosts_of; "
    script += "print('hosts:', sum(each.cpus > 0 for each in hosts_of(connect('auto'))))"
    said = hosts.run("head", f"python -c {shlex.quote(script)}", check=False)
    return int(said.rpartition("hosts:")[2]) if "hosts:" in said else -1

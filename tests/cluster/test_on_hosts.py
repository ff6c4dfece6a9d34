"""A search on several real hosts: launched as people launch it, and whatever host or link fails, nothing is lost."""

import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import HOUSE, Hosts, missing
from promises import broken_promises

from cluster.ledger import LEDGER, read_rows
from foundation import RequestError

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

TOKEN = "0123456789abcdef0123456789abcdef"
SPACE = "batch_size: 16\naccumulation_steps: 1\ncnn: {depth: 1, filters: 8, dense_layers: 1, dense_units: 16}\n"
CUT_SECONDS = 90.0

Row = dict[str, Any]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """A head, two workers, and a laptop from which they are used; `cluster.yaml` describes them to Ray."""
    environment = {"CONVSCOUT_CACHE": str(tmp_path / "shared" / "cache"), "RAY_USAGE_STATS_ENABLED": "0"}
    with Hosts(tmp_path, ["laptop", "head", "one", "two"], environment) as made:
        (made.shared / "space.yaml").write_text(SPACE)
        described = yaml.safe_load((HOUSE / "cluster" / "local.yaml").read_text())
        described["provider"] |= {"head_ip": made.address["head"]}
        described["provider"]["worker_ips"] = [made.address["one"], made.address["two"]]
        described["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh-key"}
        described["setup_commands"] = described["setup_commands"][-1:]  # what is installed there is the machine's
        described["file_mounts"].pop("~/convscout")
        described["worker_start_ray_commands"][-1] += " --num-cpus=1"
        (made.shared / "cluster.yaml").write_text(yaml.safe_dump(described))
        made.run("laptop", f"mkdir -p ~/.ray && echo {TOKEN} > ~/.ray/auth_token")
        yield made


def up(hosts: Hosts) -> None:
    """Start the cluster as a user does, and wait until both workers are there."""
    hosts.run("laptop", f"ray up --yes --no-config-cache {hosts.shared}/cluster.yaml", timeout=300)
    wait_for(lambda: workers(hosts) == 2)


def workers(hosts: Hosts) -> int:
    asked = "import sys; from cluster.connect import connect; from cluster.resources import hosts_of; "
    asked += "print('hosts:', sum(each.cpus > 0 for each in hosts_of(connect('auto'))))"
    said = hosts.run("head", f"python -c {shlex.quote(asked)}", check=False)
    return int(said.rpartition("hosts:")[2]) if "hosts:" in said else 0


def wait_for(condition: Callable[[], Any], seconds: float = 300.0, process: Any = None) -> Any:
    """Return the first true value of a condition."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert process is None or process.poll() is None, "the command ended before"
        assert time.monotonic() < end, f"nothing of that within {seconds:.0f} s"
        time.sleep(0.2)
    return value


def rows(folder: Path) -> list[Row]:
    try:
        return list(read_rows(folder / LEDGER))
    except (FileNotFoundError, RequestError):
        return []


def asked(hosts: Hosts, *more: str, name: str = "x", trials: int = 4, epochs: int = 9) -> str:
    """Return the arguments of a small search as a command line has them."""
    budget = ("--trials", str(trials), "--epochs", str(epochs), "--precision", "fp32", "--checkpoint-every", "0.2s")
    where = ("--name", name, "--storage", str(hosts.shared / "all runs"), "--space", str(hosts.shared / "space.yaml"))
    return shlex.join(["search", "digits", "--arch", "cnn", "--method", "random", *budget, *where, *more])


def test_a_search_launched_by_ray_up_and_ray_submit_uses_all_workers(hosts: Hosts) -> None:
    up(hosts)
    folder = hosts.shared / "all runs" / "x"
    said = hosts.run("laptop", f"convscout submit {hosts.shared}/cluster.yaml -- {asked(hosts, trials=6)}", timeout=400)
    assert broken_promises(folder) == [], said
    started = [row for row in rows(folder) if row["event"] == "started"]
    assert {row["host"] for row in started} == {"one", "two"}

"""A Ray cluster of one machine whose autoscaler adds and removes hosts: Ray's own fake provider, on ports of its own.

Ray's `AutoscalingCluster` begins and ends with `ray stop --force`, which ends whatever Ray runs on the machine.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MARK = "CONVSCOUT_TEST_CLUSTER"
RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 150.0


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Growing:
    """A running cluster: its address, and its hosts that the autoscaler has added."""

    def __init__(self, address: str, mark: str) -> None:
        self.address, self.mark = address, mark
        self.joined: list[subprocess.Popen[bytes]] = []

    def raylets(self) -> list[int]:
        """Return the process of each added host's raylet, the newest last."""
        found = []
        for pid in marked(self.mark):
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if "/raylet/raylet" in command.split("\0")[0] and "--head" not in command.split("\0"):
                    found.append(pid)
        return found

    def add_host(self) -> None:
        """Let a host with one core join, as `ray start --address` does on another machine."""
        command = [RAY, "start", f"--address={self.address}", "--block", "--num-cpus=1", "--min-worker-port=0"]
        command += ["--max-worker-port=0", "--object-store-memory=100000000", "--dashboard-agent-listen-port=0"]
        joining = subprocess.Popen(
            command,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", MARK: self.mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.joined.append(joining)

    def lose_host(self) -> None:
        """Kill the newest host: its raylet, and the workers die with it."""
        os.kill(self.raylets()[-1], signal.SIGKILL)


@contextmanager
def autoscaled(folder: Path, kinds: Mapping[str, Any]) -> Iterator[Growing]:
    """Yield a cluster whose head has no cores, and whose autoscaler may add hosts of these kinds."""
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    port, mark = free_port(), uuid.uuid4().hex
    config = {
        "cluster_name": "fake",
        "max_workers": 8,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": f"127.0.0.1:{port}",
            # They share an address. Else none of them is ever seen to have come, and the first, waited for in vain, is
            # for all time the room that the next trial is promised: no second one is asked for.
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,  # its hosts are there at once, and there is no ssh to them
            "disable_launch_config_check": True,
            "foreground_node_launch": True,
            "worker_liveness_check": False,
        },
        "available_node_types": {"ray.head.default": head, **kinds},
        "head_node_type": "ray.head.default",
        "upscaling_speed": 10.0,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "setup_commands": [],
        "initialization_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }
    file = folder / "cluster.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    ports = [
        f"--port={port}",
        f"--ray-client-server-port={free_port()}",
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    ports += ["--min-worker-port=0", "--max-worker-port=0", "--node-ip-address=127.0.0.1"]
    command = [RAY, "start", "--head", "--block", "--num-cpus=0", *ports]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--autoscaling-config={file}"]
    command += ["--object-store-memory=100000000"]
    own = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",
        MARK: mark,
    }
    log = (folder / "head.log").open("wb")
    head_process = subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=subprocess.STDOUT)
    cluster = Growing("", mark)
    try:
        end = time.monotonic() + START_SECONDS
        while "Ray runtime started" not in (folder / "head.log").read_text():
            assert head_process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < end, (folder / "head.log").read_text()
            time.sleep(0.2)
        cluster.address = f"127.0.0.1:{port}"
        yield cluster
    finally:
        head_process.terminate()
        with suppress(subprocess.TimeoutExpired):
            head_process.wait(20)
        for pid in marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in (head_process, *cluster.joined):
            process.wait(20)
        log.close()


def marked(mark: str) -> list[int]:
    """Return the living processes that carry this mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found

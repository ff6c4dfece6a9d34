"""The hosts that may still come: what a cluster's autoscaler can add, as far as it lets others know.

Ray 2.60 has a place for that in its own state (`get_cluster_config`), but nothing outside of Anyscale's platform fills
it. What can be read is the autoscaler's own file, by a process on the head that it runs on.
"""

import math
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.asking import on_head
from cluster.resources import Host
from foundation import Finding, RequestError, read_yaml

MONITORS = ("/autoscaler/_private/monitor.py", "/autoscaler/v2/monitor.py")
CONFIG = "--autoscaling-config="


@dataclass(frozen=True)
class Coming:
    """One host of each kind that may come. Where `unknown`, an autoscaler is there and does not say of what kinds.

    `missing` are hosts that the cluster's file lists by their addresses, and that are not there.
    """

    hosts: tuple[Host, ...] = ()
    unknown: bool = False
    missing: tuple[str, ...] = ()

    def findings(self) -> list[Finding]:
        """Return a finding for each host that is missing: Ray tells nobody but the host itself why it keeps it out."""
        why = "off, not reached by ssh, or refused by Ray (another Ray or Python, no token or a wrong one)"
        said = f"is in the cluster's file and has not joined: {why}"
        remedy = (
            "see how its start went by `ray monitor CLUSTER.yaml`, and run `convscout doctor --address HEAD:6379` there"
        )
        return [Finding("room", "warning", f"{host} {said}", remedy) for host in self.missing]


def coming(ray: Any) -> Coming:
    """Return the hosts that may come to the cluster that `ray` is connected to."""
    if config := ray._private.state.state.get_cluster_config():
        return Coming(tuple(_host(group.resources) for group in config.node_group_configs if group.max_count))
    try:
        kinds, listed = on_head(autoscaled, ray.get_runtime_context().gcs_address)
    except (OSError, LookupError, RequestError, ray.exceptions.RayError):
        return Coming(unknown=True)
    living = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    return Coming(
        tuple(_host(resources) for resources, _ in kinds if resources),
        unknown=any(not resources and len(living) <= most for resources, most in kinds),
        missing=tuple(name for name, address in listed.items() if address not in living),
    )


def autoscaled(gcs_address: str) -> tuple[list[tuple[dict[str, float], float]], dict[str, str]]:
    """Return what the cluster's autoscaler may add, looked up on its head: what a host of each kind has, and how many;
    and the addresses of the hosts that its file lists, by what they are called there.

    A kind that says nothing of what it has is given as an empty one. On Kubernetes the autoscaler runs beside the head,
    in a container of its own: there may be hosts of any kind.
    """
    port = gcs_address.rpartition(":")[2]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            arguments = path.read_bytes().decode(errors="replace").split("\0")
            address = next((each for each in arguments if each.startswith("--gcs-address=")), "")
            if any(each.endswith(MONITORS) for each in arguments) and address.endswith(f":{port}"):
                files = [each.removeprefix(CONFIG) for each in arguments if each.startswith(CONFIG)]
                config = read_yaml(Path(files[0]).expanduser(), "the autoscaler's file") if files else {}
                return kinds_of(config) if files else [], listed_in(config)
    return [({}, math.inf)] if "KUBERNETES_SERVICE_HOST" in os.environ else [], {}


def listed_in(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the address of each worker that the file of a Ray cluster lists; a name without one stands for itself."""
    found = {}
    for name in (config.get("provider") or {}).get("worker_ips") or ():
        found[str(name)] = str(name)
        with suppress(OSError):
            found[str(name)] = socket.gethostbyname(str(name))
    return found


def kinds_of(config: Mapping[str, Any]) -> list[tuple[dict[str, float], float]]:
    """Return the kinds of worker hosts in the file of a Ray cluster: what one has, and how many there may be."""
    most = config.get("max_workers", 2)  # Ray's default, and that of a kind
    kinds = config.get("available_node_types") or {}
    workers = [kind for name, kind in kinds.items() if name != config.get("head_node_type")]
    found = [(dict(kind.get("resources") or {}), min(most, kind.get("max_workers", most))) for kind in workers]
    return [(resources, number) for resources, number in found if number]


def _host(resources: Mapping[str, float]) -> Host:
    return Host(float(resources.get("CPU", 0.0)), float(resources.get("GPU", 0.0)))

"""The slot: what share of CPUs and GPUs one trial gets. One size per experiment, since Ray reuses a worker only for
an equal request."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from foundation import RequestError, count

JOINING = (
    "`ray start --address=HEAD:6379` makes a host one, and `convscout doctor --address HEAD:6379`, run there, says "
    "what keeps it out"
)
_KIND = "accelerator_type:"  # how Ray names a host's kind of GPU


@dataclass(frozen=True)
class Host:
    """What one host of the cluster has for trials: cores, GPUs of one kind, and the bytes of memory that Ray gives out
    there (all but what was in use when Ray started, and what its object store may take); `node` is Ray's name of it."""

    cpus: float
    gpus: float
    memory: float = math.inf
    kind: str = ""
    name: str = ""
    node: str = ""


@dataclass(frozen=True)
class Slot:
    """What one trial occupies: CPU cores (whole), GPUs (a share of one, or whole ones), and bytes of its host's memory.

    Memory is 0 where it was not found to be short: then nothing is asked for.
    """

    cpus: int
    gpus: float
    memory: int = 0

    def how_many(self, hosts: Sequence[Host]) -> int:
        """Return how many such slots fit beside each other; a trial does not spread over hosts."""
        return sum(self.fit(host) for host in hosts)

    def fit(self, host: Host) -> int:
        """Return how many such slots one host has."""
        there = int(host.cpus // self.cpus)
        if self.memory and host.memory < math.inf:
            there = min(there, int(host.memory // self.memory))
        if not self.gpus:
            return there
        return min(there, int(host.gpus) * self.sharers if self.gpus < 1 else int(host.gpus // self.gpus))

    @property
    def sharers(self) -> int:
        """How many trials have one GPU together; shares do not add up across devices: 0.6 of one fits once on each."""
        return int(1 / self.gpus) if 0 < self.gpus < 1 else 1

    def to_json(self) -> dict[str, float]:
        """Return the slot as the ledger keeps it."""
        return asdict(self)

    def request(self) -> dict[str, float]:
        """Return what Ray is asked for."""
        asked = {"cpu": self.cpus, "gpu": self.gpus}
        return asked | {"memory": self.memory} if self.memory else asked


@dataclass(frozen=True)
class Place:
    """Where the trials of a launch run: the slot of each, the hosts there are now, and how many side by side at most.

    An epoch that takes longer than `epoch_timeout` seconds has hung; None leaves that to the watchdog. `grows` says
    whether an autoscaler may add hosts. `unfit` are the hosts that could not get what trials need, by Ray's names of
    them, each with the sentence why.
    """

    slot: Slot
    hosts: Sequence[Host]
    max_concurrent: int | None = None
    epoch_timeout: float | None = None
    grows: bool = False
    unfit: Mapping[str, str] = field(default_factory=dict)

    @property
    def slots(self) -> int:
        """How many trials run side by side now, or soon: at least one."""
        return max(1, self.room(self.hosts))

    @property
    def team_slot(self) -> Slot:
        """What each of the processes gets that train one model together: no two can share a GPU, for NCCL."""
        return Slot(self.slot.cpus, 1.0 if self.slot.gpus else 0.0)

    @property
    def team_room(self) -> int:
        """How many processes that train one model together the hosts have room for."""
        return self.team_slot.how_many(self.hosts)

    def check_team(self, workers: int) -> None:
        """Raise `RequestError` where so many processes that train one model together have no room on the hosts."""
        slot = self.team_slot
        if workers > self.team_room:
            gpus = f" and {count(int(slot.gpus), 'whole GPU')}" if slot.gpus else ""
            raise RequestError(
                f"{workers} workers that train one model together (--retrain-workers) ask for "
                f"{count(slot.cpus, 'CPU core')}{gpus} each; the hosts have room for {self.team_room} of them: "
                f"{hosts_in_words(self.hosts)}"
            )

    @property
    def host_cores(self) -> int:
        """The cores of the smallest host that has room for a trial: a cluster's head often takes none."""
        return int(min((host.cpus for host in self.hosts if self.slot.how_many([host])), default=self.slot.cpus))

    def room(self, hosts: Sequence[Host], spare: int = 0) -> int:
        """Return how many trials there may be at a time on these hosts, with `spare` more."""
        there = self.slot.how_many([host for host in hosts if host.node not in self.unfit]) + spare
        return min(there, self.max_concurrent or there)

    def request(self) -> str:
        """Return what `cluster.asking.requested` reads, as text: Ray would walk and rename what is nested."""
        return json.dumps({"slot": self.slot.request(), "not_on": sorted(self.unfit)})


def hosts_of(ray: Any) -> list[Host]:
    """Return the living hosts of the cluster that `ray` is connected to."""
    living = [node for node in ray.nodes() if node["Alive"]]
    return [_host(node["Resources"], str(node["NodeManagerHostname"]), str(node["NodeID"])) for node in living]


def hosts_in_words(hosts: Sequence[Host]) -> str:
    """Return what hosts have, each kind once."""
    return "; ".join(sorted({f"{host.cpus:g} cores and {host.gpus:g} GPUs" for host in hosts}))


def _host(resources: Mapping[str, float], name: str, node: str) -> Host:
    kinds = [each.removeprefix(_KIND) for each in resources if each.startswith(_KIND)]
    cpus, gpus = (resources.get(each, 0.0) for each in ("CPU", "GPU"))
    return Host(cpus, gpus, resources.get("memory", math.inf), kinds[0] if gpus and kinds else "", name, node)


def of_kind(kind: str) -> dict[str, float]:
    """Return what a task asks of Ray for to run on a host with this kind of GPU; nothing for a host that names none."""
    return {f"{_KIND}{kind}": 0.001} if kind else {}


def choose_slot(
    hosts: Sequence[Host],
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | str | None = None,
    others_may_come: bool = False,
) -> Slot:
    """Return the slot for a cluster of these hosts, those that may come among them, as asked or by default.

    By default, and with `auto` before anything is measured, a trial takes one GPU where there are any, else none, and
    the part of the cores that leaves none of its host's GPUs idle (one core without GPUs: trials side by side keep
    every core busy). Raises `RequestError` when no host can ever hold such a slot, since Ray would wait for it for
    ever, and no others may come.
    """
    with_gpus = [host for host in hosts if host.gpus >= 1]
    slot_gpus = gpus_per_trial if isinstance(gpus_per_trial, int | float) else 1.0 if with_gpus else 0.0
    if 1 < slot_gpus != int(slot_gpus):
        raise RequestError(f"--gpus-per-trial {slot_gpus:g}: above 1 it must be a whole number")
    slot_cpus = cpus_per_trial or 1
    if cpus_per_trial is None and slot_gpus and with_gpus:
        slot_cpus = max(1, min(math.floor(host.cpus * slot_gpus / host.gpus) for host in with_gpus))
    slot = Slot(slot_cpus, slot_gpus)
    if slot.how_many(hosts) < 1 and not others_may_come:
        remedy = "lower --cpus-per-trial or --gpus-per-trial"
        if not any(host.cpus or host.gpus for host in hosts):  # a head that takes no trials
            remedy = f"no worker has joined; {JOINING}"
        raise RequestError(
            f"a trial asks for {slot_cpus} CPU cores and {slot_gpus:g} GPUs on one host, but the hosts have "
            f"{hosts_in_words(hosts)}: {remedy}"
        )
    return slot

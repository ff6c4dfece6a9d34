"""The slot: what share of CPUs and GPUs one trial gets. One size per experiment, since Ray reuses a worker only for
an equal request."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foundation import RequestError, count


@dataclass(frozen=True)
class Host:
    """What one host of the cluster has for trials."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Slot:
    """What one trial occupies: CPU cores (whole) and GPUs (a share of one, or whole ones)."""

    cpus: int
    gpus: float

    def how_many(self, hosts: Sequence[Host]) -> int:
        """Return how many such slots fit beside each other; a trial does not spread over hosts."""
        return sum(self._fit(host) for host in hosts)

    def _fit(self, host: Host) -> int:
        by_cpu = int(host.cpus // self.cpus)
        if not self.gpus:
            return by_cpu
        # shares do not add up across devices: 0.6 of a GPU fits once on each
        by_gpu = int(host.gpus) * int(1 / self.gpus) if self.gpus < 1 else int(host.gpus // self.gpus)
        return min(by_cpu, by_gpu)

    def to_json(self) -> dict[str, float]:
        """Return the slot as the ledger keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Where the trials of a launch run: the slot of each, the hosts there are now, and how many side by side at most.

    An epoch that takes longer than `epoch_timeout` seconds has hung; None leaves that to the watchdog.
    """

    slot: Slot
    hosts: Sequence[Host]
    max_concurrent: int | None = None
    epoch_timeout: float | None = None

    @property
    def slots(self) -> int:
        """How many trials run side by side now."""
        return self.room(self.hosts)

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
        """The cores of the smallest host."""
        return int(min(host.cpus for host in self.hosts))

    def room(self, hosts: Sequence[Host], spare: int = 0) -> int:
        """Return how many trials there may be at a time on these hosts, with `spare` more."""
        there = self.slot.how_many(hosts) + spare
        return min(there, self.max_concurrent or there)


def hosts_of(ray: Any) -> list[Host]:
    """Return the living hosts of the cluster that `ray` is connected to."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Host(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in found]


def hosts_in_words(hosts: Sequence[Host]) -> str:
    """Return what hosts have, each kind once."""
    return "; ".join(sorted({f"{host.cpus:g} cores and {host.gpus:g} GPUs" for host in hosts}))


def choose_slot(hosts: Sequence[Host], cpus_per_trial: int | None = None, gpus_per_trial: float | None = None) -> Slot:
    """Return the slot for a cluster, as asked or by default.

    By default a trial takes one GPU where there are any, else none, and the part of the cores that leaves none of
    its host's GPUs idle (one core without GPUs: trials side by side keep every core busy). Raises `RequestError`
    when no host can ever hold such a slot, since Ray would wait for it for ever.
    """
    with_gpus = [host for host in hosts if host.gpus >= 1]
    slot_gpus = (1.0 if with_gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    if 1 < slot_gpus != int(slot_gpus):
        raise RequestError(f"--gpus-per-trial {slot_gpus:g}: above 1 it must be a whole number")
    slot_cpus = cpus_per_trial or 1
    if cpus_per_trial is None and slot_gpus and with_gpus:
        slot_cpus = max(1, min(math.floor(host.cpus * slot_gpus / host.gpus) for host in with_gpus))
    slot = Slot(slot_cpus, slot_gpus)
    if slot.how_many(hosts) < 1:
        raise RequestError(
            f"a trial asks for {slot_cpus} CPU cores and {slot_gpus:g} GPUs on one host, but the hosts have "
            f"{hosts_in_words(hosts)}: lower --cpus-per-trial or --gpus-per-trial"
        )
    return slot

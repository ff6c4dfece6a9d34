"""How many trials share a host or a GPU: as many as memory and speed allow, and fewer once memory was short."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.record import Row, TrialRecord
from cluster.resources import Host, Place, Slot
from foundation import count

COUNTS = (1, 2, 4, 8, 16)  # trials on one GPU that are measured side by side
GAIN_NEEDED = 1.05  # in trial-epochs a second, for twice as many at a time: two runs differ by less
USABLE = (
    0.9  # of a GPU's memory; another choice of cuDNN's, or another order of sizes, takes some more than was measured
)
FINEST = 10_000  # Ray counts shares of a GPU in so many parts
OF_A_GPU = ("CUDA", "CUDNN", "cuDNN", "unable to find an engine")  # words of an error: its memory, not the host's


@dataclass(frozen=True)
class MeasuredGpu:
    """What was measured on one GPU of a kind, of which the cluster has `number`: its bytes, those that one trial of the
    largest configuration takes (its process's own and its copy of the data with it), and by how many side by side the
    trial-epochs a second of all of them together."""

    kind: str
    number: int
    total_bytes: int
    trial_bytes: int
    rates: Mapping[int, float]

    @property
    def fits(self) -> int:
        """How many such trials its memory holds; one is tried in any case."""
        return max(1, int(USABLE * self.total_bytes // max(1, self.trial_bytes)))

    def rate(self, sharers: int) -> float:
        """Return the trial-epochs a second with so many side by side; more than were measured are taken for no gain."""
        return self.rates[max(number for number in self.rates if number <= sharers)]


def share(kinds: Sequence[MeasuredGpu]) -> int:
    """Return how many trials have one GPU together: one number for all kinds, since Ray uses a worker again only for an
    equal request, and gives out shares without looking at what a GPU holds.

    It is at most what the memory of the smallest kind holds, and of those the fewest that give the most trial-epochs a
    second over all GPUs: twice as many must bring 1.05 times as much.
    """
    most = min(kind.fits for kind in kinds)
    best = 1
    for sharers in COUNTS:
        if sharers <= most and _rate(kinds, sharers) > GAIN_NEEDED * _rate(kinds, best):
            best = sharers
    return best


def _rate(kinds: Sequence[MeasuredGpu], sharers: int) -> float:
    return sum(kind.number * kind.rate(sharers) for kind in kinds)


def share_of(sharers: int) -> float:
    """Return the share of a GPU that so many trials have each: no more together than one GPU, as Ray counts."""
    return math.floor(FINEST / sharers) / FINEST


def within_memory(slot: Slot, hosts: Sequence[Host], trial_bytes: int, shared_bytes: int = 0) -> Slot:
    """Return the slot with the memory of its host that a trial takes, where `shared_bytes` lie once on each host.

    Where no host has memory for one trial, it gets all that the largest has: there it is tried alone.
    """
    held = [min(fit, _holds(host.memory - shared_bytes, trial_bytes)) for host in hosts if (fit := slot.fit(host))]
    if holding := [number for number in held if number >= 1]:
        return replace(slot, memory=trial_bytes + math.ceil(shared_bytes / min(holding)))
    return alone(slot, hosts)


def _holds(memory: float, trial_bytes: int) -> float:
    return memory // trial_bytes if memory < math.inf else memory


def alone(slot: Slot, hosts: Sequence[Host]) -> Slot:
    """Return the slot with so much memory that no host holds two, and the largest holds one."""
    return replace(slot, memory=_so_many(max(host.memory for host in hosts if host.cpus >= slot.cpus), 1))


def _so_many(memory: float, number: int) -> int:
    """Return the bytes of which so many fit into a memory, also when that is a little more or less the next time."""
    return int(memory / (number + 0.5))


def grown(slot: Slot, host: Host, beside: int, *, device: bool) -> Slot:
    """Return a larger slot, of which a host or a GPU holds fewer: three quarters of those that were there together.

    `beside` is how many trials were there when memory was short, the GPU's if `device`, else the host's. The slot
    itself where it is as large as it can be.
    """
    there = min(beside, slot.sharers if device else slot.fit(host))
    fewer = there - max(1, there // 4)
    if fewer < 1 or (not device and host.memory == math.inf):
        return slot
    return replace(slot, gpus=share_of(fewer)) if device else replace(slot, memory=_so_many(host.memory, fewer))


@dataclass(frozen=True)
class Shortage:
    """What becomes of a trial that ran out of memory: whether it did so because others were beside it, whether it runs
    alone the next time, and the fields of the `slot_grown` row, if there is to be one."""

    shared: bool
    alone: bool
    growth: dict[str, Any] | None = None


class Sharing:
    """The slots of a launch: the one with which each trial was handed out, and the one for those to come."""

    def __init__(self) -> None:
        self.place: Place | None = None  # until the launch
        self._given: dict[str, Slot] = {}  # Ray's trial id -> its slot

    def take(self, key: str) -> None:
        """Note that a trial is handed out now."""
        if self.place:
            self._given[key] = self.place.slot

    def drop(self, key: str) -> None:
        """Note that a trial has ended, or its process."""
        self._given.pop(key, None)

    def shun(self, node: str, why: str) -> None:
        """Give no more trials to a host that could not get what they need; `why` is a sentence that names it."""
        if self.place:
            self.place = replace(self.place, unfit={**self.place.unfit, node: why})

    def shortage(self, key: str, record: TrialRecord, beats: Mapping[str, Row], error: str) -> Shortage:
        """Return what becomes of a trial whose process ran out of memory, and let the slot grow if that was too small.

        `beats` are the last rows of the workers. A trial makes the slot grow once; when it runs out of memory beside
        others again, it runs alone. Trials that were handed out before the slot grew do not let it grow further.
        """
        device = any(word in error for word in OF_A_GPU)
        others = self._others(key, beats, device)
        if not others or self.place is None:
            return Shortage(shared=False, alone=not device)
        before = self.place.slot
        if record.shared_losses or any(self._given[each] != before for each in (key, *others)):
            return Shortage(shared=True, alone=bool(record.shared_losses))
        host = self._host(beats.get(key))
        after = grown(before, host, len(others) + 1, device=device)
        if after == before:
            return Shortage(shared=True, alone=True)
        self.place = replace(self.place, slot=after)
        what = "a GPU's memory" if device else f"the memory of {host.name or 'its host'}"
        numbers = f"{self._most(before, host, device)} to {self._most(after, host, device)}"
        of = "GPU" if device else "host"
        why = (
            f"trial {record.trial} ran out of {what} beside {count(len(others), 'other')}: fewer run side by side from "
            f"now on, {numbers} on such a {of}"
        )
        fields = {"before": before.to_json(), "slot": after.to_json(), "host": host.name, "beside": len(others)}
        return Shortage(True, False, fields | {"slots": self.place.slots, "why": why})

    def _others(self, key: str, beats: Mapping[str, Row], device: bool) -> list[str]:
        """Return the trials that may have taken the memory that was short: those on the same host, or the same GPU.

        One whose worker has not spoken yet may be there, where there is room for two; so may all, if it has not.
        """
        mine, places = beats.get(key), ("host", "gpu") if device else ("host",)
        given, host = self._given.get(key), self._host(mine)

        def near(other: str) -> bool:
            theirs = beats.get(other)
            if mine and theirs:
                return all(mine.get(each) == theirs.get(each) for each in places)
            return any(self._most(slot, host, device) > 1 for slot in (given, self._given[other]) if slot)

        return [other for other in self._given if other != key and near(other)]

    def _host(self, beat: Row | None) -> Host:
        """Return the host of a worker's row; where it is not known, the one that holds the most trials."""
        if self.place is None:
            return Host(0, 0)
        name = beat["host"] if beat else ""
        of_name = [host for host in self.place.hosts if name and host.name == name]
        return max(of_name or self.place.hosts, key=self.place.slot.fit)

    @staticmethod
    def _most(slot: Slot, host: Host, device: bool) -> int:
        return slot.sharers if device else slot.fit(host)

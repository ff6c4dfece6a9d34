"""The slot: what share of CPUs and GPUs one trial gets. One size per experiment, since Ray reuses a worker only
for an equal request."""

import math
from dataclasses import asdict, dataclass

from foundation import RequestError


@dataclass(frozen=True)
class Slot:
    """What one trial occupies: CPU cores (whole) and GPUs (a share of one, or whole ones)."""

    cpus: int
    gpus: float

    def how_many(self, cpus: float, gpus: float) -> int:
        """Return how many such slots fit beside each other into so many cores and GPUs."""
        by_cpu = int(cpus // self.cpus)
        if not self.gpus:
            return by_cpu
        # shares do not add up across devices: 0.6 of a GPU fits once on each
        by_gpu = int(gpus) * int(1 / self.gpus) if self.gpus < 1 else int(gpus // self.gpus)
        return min(by_cpu, by_gpu)

    def to_json(self) -> dict[str, float]:
        """Return the slot as the ledger keeps it."""
        return asdict(self)


def choose_slot(
    cpus: float, gpus: float, cpus_per_trial: int | None = None, gpus_per_trial: float | None = None
) -> Slot:
    """Return the slot for a cluster of so many cores and GPUs, as asked or by default.

    By default a trial takes one GPU where there are any, else none, and an equal part of the cores (one core on
    a machine without GPUs: trials side by side keep every core busy). Raises `RequestError` when no such slot
    can ever be scheduled, since Ray would wait for it for ever.
    """
    slot_gpus = (1.0 if gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    if 1 < slot_gpus != int(slot_gpus):
        raise RequestError(f"--gpus-per-trial {slot_gpus:g}: above 1 it must be a whole number")
    if cpus_per_trial is not None:
        slot_cpus = cpus_per_trial
    elif slot_gpus:
        slot_cpus = max(1, math.floor(cpus * slot_gpus / max(gpus, slot_gpus)))
    else:
        slot_cpus = 1
    slot = Slot(slot_cpus, slot_gpus)
    if slot.how_many(cpus, gpus) < 1:
        raise RequestError(
            f"a trial asks for {slot_cpus} CPU cores and {slot_gpus:g} GPUs, but the cluster has {cpus:g} cores and "
            f"{gpus:g} GPUs: lower --cpus-per-trial or --gpus-per-trial"
        )
    return slot

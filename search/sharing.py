"""How many trials of a request share a host or a GPU: measured where memory or speed could decide it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cluster.connect import is_own_cluster, run_in_slot, run_on_kind
from cluster.resources import Host, Place, Slot, choose_slot
from cluster.shares import COUNTS, GAIN_NEEDED, MeasuredGpu, share, share_of, within_memory
from foundation import count
from search.disk import size_text
from search.largest import Largest, largest
from search.request import Request

if TYPE_CHECKING:
    from trainables.footprint import Footprint
    from trainables.samples import Sample
    from trainables.settings import Settings

PROCESS_BYTES = 400_000_000  # of a worker that trains nothing, libraries left out: Python, Ray and torch
# Of a host's memory: where what is reckoned takes less, nothing is measured; and where it takes less than a half of
# that, no larger configuration is looked for than the disk was reckoned from.
NOT_SHORT = 0.5
MARGIN = 1.1  # over what was measured: it is not the same each time
RESIDENT = 0.3  # of a GPU's memory: larger data stays on the host (trainables.batches)


@dataclass(frozen=True)
class Shares:
    """The slot that was found, what the `calibrated` row keeps of how, and a sentence for the user, if there is one."""

    slot: Slot
    row: dict[str, Any]
    sentence: str | None = None


def by_host_memory(request: Request, place: Place, trials: int) -> Shares:
    """Return the slot of trials without a GPU: no more of them on a host than its memory holds.

    The largest configuration of each architecture is reckoned from its shapes, and measured only where so many as fit
    by their cores could take half of a host's memory. Cores that memory leaves idle are given to those that run.
    """
    spec, slot = request.spec, place.slot
    most, cached = min(trials, spec.max_concurrent or trials), _cached_bytes(request)
    for thorough, share_of_memory in ((False, NOT_SHORT / 2), (True, NOT_SHORT)):
        found = largest(request, thorough=thorough)
        reckoned = {each.architecture: PROCESS_BYTES + each.trial_bytes for each in found}
        row: dict[str, Any] = {"reckoned_mb": _megabytes(reckoned)}
        trial_bytes = max(reckoned.values(), default=0)
        if not any(_takes(host, slot, most, trial_bytes, cached) > share_of_memory for host in place.hosts):
            return Shares(slot, row)
    cores = place.host_cores if is_own_cluster() else slot.cpus
    taken = run_in_slot(_footprints, slot, *_asked(request, found, {each.architecture: cores for each in found}))
    if any(each is None for each in taken.values()):
        return Shares(slot, row)
    bytes_of = {name: each.host_bytes for name, each in taken.items()}
    return _bounded(request, place, slot, bytes_of, cached, row | {"measured_mb": _megabytes(bytes_of)}, most)


def _bounded(
    request: Request,
    place: Place,
    slot: Slot,
    bytes_of: Mapping[str, int],
    cached: int,
    row: dict[str, Any],
    most: int,
) -> Shares:
    """Return the slot with the memory that the largest configuration was found to take, and what that changes."""
    name = max(bytes_of, key=lambda each: bytes_of[each])
    bound = within_memory(slot, place.hosts, math.ceil(MARGIN * bytes_of[name]), cached)
    before, after = (min(most, each.how_many(place.hosts)) for each in (slot, bound))
    if after >= before:
        return Shares(bound, row)
    if request.spec.cpus_per_trial is None:
        cores = min(int(host.cpus // number) for host in place.hosts if (number := bound.fit(host)))
        bound = replace(bound, cpus=max(bound.cpus, cores))
    memory = size_text(min(host.memory for host in place.hosts if bound.fit(host)))
    takes = f"the largest configuration, of {name}, takes {size_text(bytes_of[name])} of a host's {memory}"
    return Shares(bound, row, f"Memory: {takes}, so {after} and not {before} run side by side.")


def by_gpu(
    request: Request, place: Place, settings: Mapping[str, "Settings"], samples: Sequence["Sample"], trials: int
) -> Shares:
    """Return the slot for trials that share GPUs: as many to one as train the most and as its memory holds.

    On one host of each kind of GPU, the largest configuration of each architecture is trained for two steps, and then
    the `samples` by 1, 2, 4, ... processes side by side until more do not gain.
    """
    spec = request.spec
    most = min(trials, spec.max_concurrent or trials)
    gpus = sum(int(host.gpus) for host in place.hosts)
    found = largest(request)
    kinds: list[MeasuredGpu] = []
    host_bytes = {each.architecture: 0 for each in found}
    for kind in sorted({host.kind for host in place.hosts if host.gpus >= 1}):
        hosts = [host for host in place.hosts if host.kind == kind and host.gpus >= 1]
        slot = choose_slot(hosts, None, 1.0)
        asked = _asked(request, found, {name: each.threads for name, each in settings.items()}, settings)
        taken = run_on_kind(_footprints, kind, slot, *asked)
        host_bytes = {name: max(each.host_bytes, host_bytes[name]) for name, each in taken.items()}
        at_most = min(slot.cpus // (spec.cpus_per_trial or 1), math.ceil(most / gpus))
        number = sum(int(host.gpus) for host in hosts)
        kinds.append(_measured_gpu(request, kind, number, slot, list(taken.values()), settings, samples, at_most))
    sharers = share(kinds)
    slot = choose_slot(place.hosts, spec.cpus_per_trial, share_of(sharers) if sharers > 1 else 1.0)
    row = {"trials_per_gpu": sharers, "kinds": [_kind_row(each) for each in kinds]}
    held = " and ".join(f"{each.fits} on {each.kind or 'a GPU'}" for each in kinds)
    gain = sum(each.number * each.rate(sharers) for each in kinds) / sum(each.number * each.rate(1) for each in kinds)
    at_a_time = f"GPU: {count(sharers, 'trial')} on each at a time"
    said = f"{at_a_time}, {gain:.2f} times as fast together as one; memory for {held}."
    if not any(host_bytes.values()):  # the system does not tell
        return Shares(slot, row, said)
    shares = _bounded(request, place, slot, host_bytes, _cached_bytes(request), row, most)
    return replace(shares, sentence=f"{said} {shares.sentence}" if shares.sentence else said)


def _measured_gpu(
    request: Request,
    kind: str,
    number: int,
    slot: Slot,
    taken: Sequence["Footprint"],
    settings: Mapping[str, "Settings"],
    samples: Sequence["Sample"],
    at_most: int,
) -> MeasuredGpu:
    from trainables.side_by_side import measure_rates

    total = min(each.device_total for each in taken)
    cached = _cached_bytes(request)
    copy = cached if cached <= RESIDENT * total else 0
    held = MeasuredGpu(kind, number, total, max(each.device_bytes for each in taken) + copy, {})
    rates = run_on_kind(
        measure_rates,
        kind,
        slot,
        samples,
        settings,
        request.cache.image_shape,
        len(request.cache.classes),
        counts=[each for each in COUNTS if each <= max(1, min(held.fits, at_most))],
        gain_needed=GAIN_NEEDED,
        cores=slot.cpus,
    )
    return replace(held, rates={each: rate / request.n_train for each, rate in rates.items()})


def _asked(
    request: Request,
    found: Sequence[Largest],
    threads: Mapping[str, int],
    settings: Mapping[str, "Settings"] | None = None,
) -> tuple[Any, ...]:
    """Return the arguments of `_footprints`; without settings, those of a CPU."""
    from trainables.settings import Settings

    plain = Settings(precision="bf16" if request.spec.precision == "bf16" else "fp32")
    of = settings or {each.architecture: replace(plain, threads=threads[each.architecture]) for each in found}
    cache = request.cache
    return found, of, dict(request.sources), cache.image_shape, len(cache.classes), request.n_val


def _footprints(
    found: Sequence[Largest],
    settings: Mapping[str, "Settings"],
    sources: Mapping[str, str],
    image_shape: tuple[int, int, int],
    n_classes: int,
    n_val: int,
) -> dict[str, "Footprint | None"]:
    """Measure the largest configurations in this process, one after the other."""
    from trainables.footprint import measure_footprint
    from trainables.samples import Sample

    return {
        each.architecture: measure_footprint(
            Sample(each.architecture, each.config, sources.get(each.architecture)),
            settings[each.architecture],
            image_shape,
            n_classes,
            n_val,
            each.kept_bytes,
            each.largest_bytes,
        )
        for each in found
    }


def _takes(host: Host, slot: Slot, most: int, trial_bytes: int, cached: int) -> float:
    """Return the share of a host's memory that trials and images take; 0 where the host does not say what it has."""
    return (min(slot.fit(host), most) * trial_bytes + cached) / host.memory


def _cached_bytes(request: Request) -> int:
    """Return the bytes of the images that trials read; the decoded ones lie mapped once on a host."""
    return int(request.cache.arrays()[0].nbytes)


def _megabytes(sizes: Mapping[str, int]) -> dict[str, int]:
    return {name: round(size / 1e6) for name, size in sizes.items()}


def _kind_row(kind: MeasuredGpu) -> dict[str, Any]:
    return {
        "kind": kind.kind,
        "number": kind.number,
        "total_mb": round(kind.total_bytes / 1e6),
        "trial_mb": round(kind.trial_bytes / 1e6),
        "fits": kind.fits,
        "epochs_per_second": {str(number): rate for number, rate in kind.rates.items()},
    }

"""What an experiment's trials are fast at: measured once, kept in the ledger, applied everywhere."""

import random
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from cluster.connect import import_beside, run_in_slot
from cluster.ledger import Ledger
from cluster.record import Row
from cluster.resources import Place, Slot
from cluster.session import Tell, open_session
from search.request import Request
from search.sharing import Shares, by_gpu, by_host_memory
from spaces import Space

if TYPE_CHECKING:
    from trainables.samples import Sample

DRAWS = 20


def calibrate(request: Request, ledger: Ledger, trials: int, tell: Tell) -> Row:
    """Measure and return the `calibrated` row of an experiment of so many trials; tell the user what memory decided."""
    row = measured(request, trials)
    if sentence := row["shares"]["sentence"]:
        tell(sentence)
    return ledger.append("calibrated", **row)


def measured(request: Request, trials: int) -> dict[str, Any]:
    """Measure what the `calibrated` row of an experiment of so many trials says: settings and the slot.

    Without a GPU, memory bounds how many run side by side; with `--gpus-per-trial auto`, how many share one.
    """
    start, spec = time.monotonic(), request.spec
    place = open_session(spec.model_dump(), None)
    import_beside("cluster.tune_hooks", "trainables.trainable", "cluster.watch")  # Ray's Tune takes 1.7 s
    from trainables import calibrate as measure

    shares = Shares(place.slot, {}) if place.slot.gpus else by_host_memory(request, place, trials)
    slot, baselines = shares.slot, _samples(request)
    found = run_in_slot(
        measure.calibrate,
        slot,
        baselines,
        request.cache.image_shape,
        len(request.cache.classes),
        spec.precision,
        cores=slot.cpus,
        gpus=slot.gpus,
        host_cores=None if spec.cpus_per_trial else place.host_cores,
        beside=max(1, min(_beside(slot, place), trials, spec.max_concurrent or trials)),
    )
    settings, slot = found.settings, replace(slot, cpus=found.cores)
    if slot.gpus and spec.gpus_per_trial == "auto" and {each.device for each in settings.values()} == {"cuda"}:
        shares = by_gpu(request, place, settings, baselines, trials)
        slot = shares.slot
        settings = {name: replace(each, threads=slot.cpus) for name, each in settings.items()}
    return {
        "settings": {name: each.to_json() for name, each in settings.items()},
        "device": found.device,
        "slot": slot.to_json(),
        "shares": {**shares.row, "sentence": shares.sentence},
        "images_per_second": found.images_per_second,
        "seconds": round(time.monotonic() - start, 3),
    }


def _samples(request: Request) -> list["Sample"]:
    """Return what is trained of each architecture where its speed is measured."""
    from trainables.samples import Sample

    spaces, sources = request.spaces, request.sources
    return [Sample(name, _possible(request, space), sources.get(name)) for name, space in spaces.items()]


def _beside(slot: Slot, place: Place) -> int:
    """Return how many trials run side by side on the host that holds the fewest."""
    return min((number for host in place.hosts if (number := slot.fit(host))), default=1)


def _possible(request: Request, space: Space) -> Mapping[str, Any]:
    """Return the baseline of a space, or the first drawn configuration that can be built for these images."""
    rng = random.Random(0)
    candidates = chain([space.baseline], (space.draw(rng) for _ in range(DRAWS)))
    can_be = (config for config in candidates if not request.preflight(space.architecture, config).impossible)
    return next(can_be, space.baseline)

"""What an experiment's trials are fast at: measured once, kept in the ledger, applied everywhere."""

import random
import time
from collections.abc import Mapping
from itertools import chain
from typing import Any

from cluster.connect import import_beside, run_in_slot
from cluster.history import Row
from cluster.ledger import Ledger
from cluster.resources import Slot
from cluster.session import open_session
from search.request import Request
from spaces import Space

DRAWS = 20


def calibrate(request: Request, ledger: Ledger, trials: int) -> Row:
    """Measure and return the `calibrated` row of an experiment of so many trials."""
    return ledger.append("calibrated", **measured(request, trials))


def measured(request: Request, trials: int) -> dict[str, Any]:
    """Measure what the `calibrated` row of an experiment of so many trials says: settings and the slot."""
    start, spec = time.monotonic(), request.spec
    place = open_session(spec.model_dump(), None)
    import_beside("cluster.tune_hooks", "trainables.trainable")  # Ray's Tune takes 1.7 s
    from trainables import calibrate as measure

    samples = [
        measure.Sample(name, _possible(request, space), request.sources.get(name))
        for name, space in request.spaces.items()
    ]
    found = run_in_slot(
        measure.calibrate,
        place.slot,
        samples,
        request.cache.image_shape,
        len(request.cache.classes),
        spec.precision,
        cores=place.slot.cpus,
        gpus=place.slot.gpus,
        host_cores=None if spec.cpus_per_trial else place.host_cores,
        beside=max(1, min(place.host_cores // place.slot.cpus, trials, spec.max_concurrent or trials)),
    )
    return {
        "settings": {name: settings.to_json() for name, settings in found.settings.items()},
        "device": found.device,
        "slot": Slot(found.cores, place.slot.gpus).to_json(),
        "images_per_second": found.images_per_second,
        "seconds": round(time.monotonic() - start, 3),
    }


def _possible(request: Request, space: Space) -> Mapping[str, Any]:
    """Return the baseline of a space, or the first drawn configuration that can be built for these images."""
    rng = random.Random(0)
    candidates = chain([space.baseline], (space.draw(rng) for _ in range(DRAWS)))
    can_be = (config for config in candidates if not request.preflight(space.architecture, config).impossible)
    return next(can_be, space.baseline)

"""How many operations a model takes for an image, counted on torch's meta device, where nothing is computed."""

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from search.preflight import IMAGES, LATE_EPOCH, built, on_meta

_KEPT = 512  # configurations: one is asked for when it is drawn, when it is proposed and when it has been trained


class Flops(NamedTuple):
    """The floating-point operations of one image's way through a model; training takes about three times as many.

    Products and convolutions count, two operations for each multiplication. `whole` is through all layers, `epoch` what
    an epoch computes, in the mean of a trial's: without frozen layers whose results are kept, since they compute once,
    for all trials of a host.
    """

    whole: int
    epoch: int


def flops(
    architecture: str,
    config: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    n_classes: int,
    source: str | None,
    epochs: int,
) -> Flops:
    """Return the operations of a model that can be built, for trials of so many epochs."""
    return _flops(architecture, json.dumps(config, sort_keys=True), image_shape, n_classes, source, epochs)


@lru_cache(_KEPT)
def _flops(
    architecture: str, config: str, image_shape: tuple[int, int, int], n_classes: int, source: str | None, epochs: int
) -> Flops:
    from trainables.recipe import split

    values = json.loads(config)
    model, total = built(architecture, values, image_shape, n_classes, source), 0
    with on_meta():
        model.begin_epoch(LATE_EPOCH)
    whole = _counted(model, _images(image_shape))
    keeps = model.augmented_views or not split(values)[0].augmentation
    for start, end in pairwise([*model.stages(epochs), epochs]):
        with on_meta():
            model.begin_epoch(start)
        images, halves = _images(image_shape), model.halves() if keeps else None
        if halves:
            with on_meta():
                images = halves[0](model.prepared(images))
        total += (end - start) * (_counted(halves[1], images) if halves else whole)
    return Flops(whole, total // epochs)


def _images(image_shape: tuple[int, int, int]) -> Any:
    import torch

    return torch.zeros(IMAGES, *image_shape, device="meta")


def _counted(model: Any, images: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode  # 0.4 s

    with FlopCounterMode(display=False) as counter, on_meta() as shortcuts:
        model(images)
    return (int(counter.get_total_flops()) + shortcuts.flops) // IMAGES

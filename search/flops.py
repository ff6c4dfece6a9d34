"""How many operations a model takes for an image, counted on torch's meta device, where nothing is computed."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from search.preflight import IMAGES, LATE_EPOCH, built, on_meta


def forward_flops(
    architecture: str, config: Mapping[str, Any], image_shape: tuple[int, int, int], n_classes: int, source: str | None
) -> int:
    """Return the floating-point operations of one image's way through a model that can be built.

    Products and convolutions count, two operations for each multiplication; training takes about three times as many.
    """
    model = built(architecture, config, image_shape, n_classes, source)
    with on_meta():
        model.begin_epoch(LATE_EPOCH)
    return _counted(model, _images(image_shape))


def epoch_flops(
    architecture: str,
    config: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    n_classes: int,
    source: str | None,
    epochs: int,
) -> int:
    """Return the operations of one image's way through what an epoch computes, in the mean of a trial's `epochs`.

    That is `forward_flops` but for frozen layers whose results are kept: they compute once, for all trials of a host.
    """
    from trainables.recipe import split

    model, total = built(architecture, config, image_shape, n_classes, source), 0
    keeps = model.augmented_views or not split(config)[0].augmentation
    for start, end in pairwise([*model.stages(epochs), epochs]):
        with on_meta():
            model.begin_epoch(start)
        images, halves = _images(image_shape), model.halves() if keeps else None
        if halves:
            with on_meta(products=False):
                images = halves[0](model.prepared(images))
        total += (end - start) * _counted(halves[1] if halves else model, images)
    return total // epochs


def _images(image_shape: tuple[int, int, int]) -> Any:
    import torch

    return torch.zeros(IMAGES, *image_shape, device="meta")


def _counted(model: Any, images: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode  # 0.4 s

    with FlopCounterMode(display=False) as counter, on_meta(products=False):
        model(images)
    return int(counter.get_total_flops()) // IMAGES

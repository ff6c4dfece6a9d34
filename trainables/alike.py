"""Whether steps that are recorded and replayed train a model as the same steps do that are not."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from trainables.samples import Sample, begun, noise
from trainables.settings import Settings
from trainables.training import Training

ALIKE, EPOCHS, BATCH = 0.1, 6, 16
AUGMENTATIONS = ("flip", "shift", "rotation", "zoom", "shear", "cutout")


def trains_alike(sample: Sample, image_shape: tuple[int, int, int], n_classes: int, captured: Settings) -> bool:
    """Return whether steps recorded and replayed train a model as the same steps do that are not.

    What a graph reads at the wrong place is not seen at once: the weights are compared after some epochs, with each
    kind of optimizer and a learning rate that changes. They must have moved as far and in the same direction; not to
    the same bits, since a GPU adds in any order, and what was close to zero then goes the other way.
    """
    data = noise(image_shape, n_classes, BATCH * 3 + BATCH // 2, BATCH)
    for optimizer in ("sgd", "adam", "rmsprop"):
        ways = []
        for way in (replace(captured, captured=False), captured):
            changes = {"batch_size": BATCH, "optimizer": optimizer, "momentum": 0.9}
            changes |= {"schedule": "one_cycle", "warmup_epochs": 0}
            training = begun(sample, data, way, **{**changes, **_without_chance(sample.config)})
            before = _weights(training)
            for _ in range(EPOCHS):
                training.epoch()
            if training.captured and (training.captured.refused or not training.captured.replayed):
                return False
            ways.append(_weights(training) - before)
        plain, replayed = ways
        length = float(replayed.norm() / plain.norm())
        along = float((plain @ replayed) / (plain.norm() * replayed.norm()))
        if not (1 - ALIKE < length < 1 + ALIKE and along > 1 - ALIKE):
            return False
    return True


def _without_chance(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs that draw random numbers in a step, turned off: a graph draws them in another order."""
    return {name: 0.0 for name in config if name.startswith("dropout") or name in AUGMENTATIONS}


def _weights(training: Training) -> torch.Tensor:
    return torch.cat([each.detach().float().flatten() for each in training.model.parameters()])

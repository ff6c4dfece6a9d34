"""What is trained for a moment to be measured: a configuration, on images of noise."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.training import Training


@dataclass(frozen=True)
class Sample:
    """A model to measure: its architecture, a configuration, and the text of a user's own file."""

    architecture: str
    config: Mapping[str, Any]
    source: str | None = None


def noise(image_shape: tuple[int, int, int], n_classes: int, n_train: int, n_val: int) -> Dataset:
    """Return images of noise with labels of chance, of a shape (channels, height, width)."""
    channels, height, width = image_shape
    count = n_train + n_val
    rng = np.random.default_rng(0)
    return Dataset(
        images=rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8),
        labels=rng.integers(0, n_classes, count),
        train=np.arange(n_train),
        val=np.arange(n_train, count),
        n_classes=n_classes,
        mean=(127.5,) * channels,
        deviation=(64.0,) * channels,
    )


def begun(sample: Sample, data: Dataset, settings: Settings, **changes: Any) -> Training:
    """Return the training of a sample, with changes to its configuration, before its first epoch."""
    training = Training(data, settings)
    config = {**sample.config, "accumulation_steps": 1, **changes}
    training.begin(sample.architecture, config, seed=0, epochs=100, source=sample.source, pretrained=False)
    return training


def lengthen(training: Training, seconds: float, most: int) -> None:
    """Let each epoch go through the images again, at most so many times, so that it takes about so many seconds.

    How long it takes once is measured here, in an epoch; so nothing may have to be loaded for it any more.
    """
    start = time.perf_counter()
    training.epoch()
    times = round(seconds / (time.perf_counter() - start))
    training.train_indices = training.train_indices.repeat(max(1, min(most, times)))

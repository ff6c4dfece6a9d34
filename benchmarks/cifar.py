"""Made images of CIFAR-10's size for the benchmarks, trainings on them, and the settings that a search would take."""

from collections.abc import Callable
from typing import Any

import numpy as np
from measure import HOUSE as HOUSE  # the rooms are found from here on

import spaces
from trainables.batches import Dataset
from trainables.calibrate import calibrate
from trainables.samples import Sample
from trainables.settings import Settings
from trainables.training import Training


def dataset(train: int, val: int) -> Dataset:
    """Return so many 32 x 32 colour images of ten classes: noise, which costs as much as anything to train on."""
    rng = np.random.default_rng(0)
    count = train + val
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Dataset(
        images=images,
        labels=rng.integers(0, 10, count),
        train=np.arange(train),
        val=np.arange(train, count),
        n_classes=10,
        mean=(125.3, 123.0, 113.9),
        deviation=(63.0, 62.1, 66.7),
    )


def calibrated(architecture: str) -> Settings:
    """Return what a search with one core a trial would train its baseline in at 32 x 32: precision, memory format."""
    sample = Sample(architecture, spaces.load(architecture).baseline)
    return calibrate([sample], (3, 32, 32), 10, "auto", cores=1, gpus=0).settings[architecture]


def epochs(data: Dataset, settings: Settings, architecture: str, config: dict[str, Any]) -> Callable[[], float]:
    """Begin a training; return what trains its next epoch and returns the images a second."""
    training = Training(data, settings)
    training.begin(architecture, config, seed=1, epochs=100)
    return lambda: training.epoch().images_per_second


def described(settings: Settings) -> str:
    """Return the precision and memory format in words."""
    return f"{settings.precision}, {'channels-last' if settings.channels_last else 'contiguous'}"

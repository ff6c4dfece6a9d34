"""Images for the benchmarks: real ones where a zip of CIFAR-10 is named, made ones otherwise."""

import os
from pathlib import Path

import numpy as np
from measure import HOUSE

import spaces
from trainables.batches import Dataset
from trainables.calibrate import Sample, calibrate
from trainables.settings import Settings

ZIP = Path(os.environ.get("CONVSCOUT_CIFAR10", HOUSE.parent / "shared" / "data" / "cifar10.zip"))


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


def described(settings: Settings) -> str:
    """Return the precision and memory format in words."""
    return f"{settings.precision}, {'channels-last' if settings.channels_last else 'contiguous'}"

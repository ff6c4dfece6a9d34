"""Measures how long configurations take to train, for a forecast: on images of noise, at settings measured before."""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from foundation import cache_root
from trainables.batches import Dataset
from trainables.device import give_freed_memory_back
from trainables.samples import Sample, noise
from trainables.settings import Settings
from trainables.training import Training

PIXELS = {"few": 2**15, "many": 2**18}  # trained on: 32 and 256 images at 32 x 32
FEWEST_IMAGES = 4
LEFT_SECONDS = 24 * 3600.0
MOST_STAGES = 4  # that are trained of a model whose layers thaw; the others take what the one before took


@dataclass(frozen=True)
class Pace:
    """How long a configuration takes: seconds per training image, its share of the validation included, and seconds
    to build the model and its optimizer."""

    seconds_per_image: float
    begin_seconds: float


def measure_pace(
    samples: Sequence[Sample],
    settings: Mapping[str, Settings],
    image_shape: tuple[int, int, int],
    n_classes: int,
    val_share: float,
    epochs: int,
    seconds: float,
) -> list[Pace]:
    """Train each sample for about its part of `seconds`, and return how long it takes.

    `settings` are by architecture; `val_share` is the number of validation images over that of training images. A
    sample is trained on a few images first, and on more where there is time for them; an epoch that warms up does not
    count. Where layers thaw, it is the mean over a trial's `epochs`. What frozen layers give is kept as in a search;
    computing it, once for all trials of a host, does not count.
    """
    _, height, width = image_shape
    paces = []
    with _scratch() as folder:
        data = []
        for name, pixels in PIXELS.items():
            count = max(FEWEST_IMAGES, pixels // (height * width))
            images = noise(image_shape, n_classes, count, max(1, round(count * val_share)))
            data.append(replace(images, features=Path(folder, name)))
        for sample in samples:
            began = time.perf_counter()
            end = began + seconds / len(samples)
            few, many = data
            pace = _pace(sample, settings[sample.architecture], few, epochs, end=0.0)
            now = time.perf_counter()
            if now + (now - began) * len(many.train) / len(few.train) < end:  # all of it, frozen layers too
                pace = _pace(sample, settings[sample.architecture], many, epochs, end)
            paces.append(pace)
            give_freed_memory_back()
    return paces


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Return a folder on the disk where a search keeps what frozen layers give, and remove what killed plans left."""
    cache_root().mkdir(parents=True, exist_ok=True)
    for path in cache_root().glob(".pace-*"):
        if time.time() - path.stat().st_mtime > LEFT_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=".pace-", dir=cache_root())


def _pace(sample: Sample, settings: Settings, data: Dataset, epochs: int, end: float) -> Pace:
    """Return the pace on these images: of each stage an epoch to warm up, one that counts, and more until `end`."""
    training = Training(data, settings)
    begun = time.perf_counter()
    training.begin(sample.architecture, sample.config, seed=0, epochs=epochs, source=sample.source, pretrained=False)
    begin_seconds = time.perf_counter() - begun
    starts, mean = training.model.stages(epochs), 0.0
    stages = [*starts[:: -(-len(starts) // MOST_STAGES)], epochs]
    for left, (start, following) in zip(range(len(stages) - 1, 0, -1), pairwise(stages), strict=True):
        now = time.perf_counter()
        mean += (following - start) / epochs * _epoch_seconds(training, start, now + (end - now) / left)
    return Pace(mean / len(data.train), begin_seconds)


def _epoch_seconds(training: Training, start: int, end: float) -> float:
    """Return the seconds of the epoch after `start` others, gone through again and again."""
    seconds: list[float] = []
    while len(seconds) < 2 or time.perf_counter() + seconds[-1] < end:
        training.epochs_done = start
        seconds.append(training.epoch().seconds)
    return fmean(seconds[1:])

"""Measures how long configurations take to train, for a forecast: on images of noise, at settings measured before."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainables.batches import Dataset
from trainables.calibrate import Sample, noise
from trainables.device import give_freed_memory_back
from trainables.settings import Settings
from trainables.training import Training

PIXELS = {"few": 2**15, "many": 2**18}  # trained on: 32 and 256 images at 32 x 32
FEWEST_IMAGES = 4


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
    seconds: float,
) -> list[Pace]:
    """Train each sample for about its part of `seconds`, and return how long it takes.

    `settings` are by architecture; `val_share` is the number of validation images over that of training images. A
    sample is trained on a few images first, and on more where there is time for them; an epoch that warms up does not
    count.
    """
    _, height, width = image_shape
    data = []
    for pixels in PIXELS.values():
        count = max(FEWEST_IMAGES, pixels // (height * width))
        data.append(noise(image_shape, n_classes, count, max(1, round(count * val_share))))
    paces = []
    for sample in samples:
        end = time.perf_counter() + seconds / len(samples)
        few, many = data
        pace = _pace(sample, settings[sample.architecture], few, end=0.0)
        if time.perf_counter() + 2 * pace.seconds_per_image * len(many.train) < end:
            pace = _pace(sample, settings[sample.architecture], many, end)
        paces.append(pace)
        give_freed_memory_back()
    return paces


def _pace(sample: Sample, settings: Settings, data: Dataset, end: float) -> Pace:
    """Return the pace on these images: an epoch to warm up, one that counts, and more until `end`."""
    training = Training(data, settings)
    begun = time.perf_counter()
    training.begin(sample.architecture, sample.config, seed=0, epochs=100, source=sample.source, pretrained=False)
    begin_seconds = time.perf_counter() - begun
    training.epoch()
    epochs = [training.epoch().seconds]
    while time.perf_counter() + epochs[-1] < end:
        epochs.append(training.epoch().seconds)
    return Pace(sum(epochs) / len(epochs) / len(data.train), begin_seconds)

"""Measures, once per experiment, what its trials are fast at: precision, memory format, and cores per trial."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainables.batches import Dataset
from trainables.device import best_device, give_freed_memory_back, name_of, wait_until_idle
from trainables.settings import Settings
from trainables.training import Training

# Coarser numbers, or fewer trials at a time, must be worth it; and what is alike is not left to chance: two searches
# with the same seed give the same figures only with the same settings.
GAIN_NEEDED = {"bf16": 1.2, "contiguous": 1.1, "all cores": 1.1}
HOPELESS = 3.0  # so many times as slow as the best at its first step: not measured again
ROUNDS = 10  # of one sample on a busy machine, the best of 4 was off by 30 %
ROUNDS_TOGETHER = 3
SECONDS = 3.0  # per architecture; large images take longer, and fewer rounds then do
IDLE_SECONDS = 6.0  # at most; workers that start beside take 4 s
MOST_SIDE_BY_SIDE = 16  # more measure the same


@dataclass(frozen=True)
class Sample:
    """A model to measure: its architecture, a configuration, and the text of a user's own file."""

    architecture: str
    config: Mapping[str, Any]
    source: str | None = None


@dataclass(frozen=True)
class Calibrated:
    """What was measured: settings per architecture, cores per trial, the device's name, and the images per second."""

    settings: dict[str, Settings]
    cores: int
    device: str
    images_per_second: dict[str, dict[str, float]]


def calibrate(
    samples: Sequence[Sample],
    image_shape: tuple[int, int, int],
    n_classes: int,
    precision: str,
    *,
    cores: int,
    gpus: float,
    host_cores: int | None = None,
    beside: int = 1,
) -> Calibrated:
    """Train a few steps of each sample in every way that is allowed, and return the fastest.

    `precision` is `fp32`, `bf16`, or `auto`: then bf16 is taken only where it is at least 1.2 times as fast. The memory
    format is channels-last unless the other is 1.1 times as fast. `cores` and `gpus` are those of a trial. With
    `host_cores`, so many trials `beside` each other are measured against one on all cores of the host, which is taken
    where it trains 1.1 times as many images a second. An architecture takes a second or two at 32 x 32.
    """
    device = best_device(gpus)
    settings: dict[str, Settings] = {}
    figures: dict[str, dict[str, float]] = {}
    precisions = ("fp32", "bf16") if precision == "auto" else (precision,)
    data = _one_batch(image_shape, n_classes)
    compares = host_cores is not None and host_cores > cores and device.type == "cpu"
    for sample in samples:
        ways = [Settings(device.type, name, last, cores) for name in precisions for last in (True, False)]
        speeds = _fastest(sample, data, ways)
        settings[sample.architecture] = best = _best(speeds)
        figures[sample.architecture] = {_name(way): round(speed, 1) for way, speed in speeds.items()}
        if compares:
            wait_until_idle(IDLE_SECONDS)
            several = _side_by_side(sample, data, best, beside)
            alone = max(_fastest(sample, data, [replace(best, threads=host_cores or cores)]).values())
            figures[sample.architecture] |= {"side by side": round(several, 1), "all cores": round(alone, 1)}
    if compares and _all_cores_win(figures):
        cores = host_cores or cores
        settings = {name: replace(each, threads=cores) for name, each in settings.items()}
    give_freed_memory_back()
    return Calibrated(settings, cores, name_of(device), figures)


def _best(speeds: Mapping[Settings, float]) -> Settings:
    """Return the fastest way, of those whose gain over fp32 and channels-last is worth it."""

    def worth(way: Settings) -> float:
        needed = GAIN_NEEDED["bf16"] if way.precision == "bf16" else 1.0
        return speeds[way] / (needed if way.channels_last else needed * GAIN_NEEDED["contiguous"])

    return max(speeds, key=worth)


def _all_cores_win(figures: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the same images of every architecture take less time on all cores together."""
    beside = sum(1 / each["side by side"] for each in figures.values())
    alone = sum(1 / each["all cores"] for each in figures.values())
    return beside > GAIN_NEEDED["all cores"] * alone


def _name(settings: Settings) -> str:
    return f"{settings.precision} {'channels_last' if settings.channels_last else 'contiguous'}"


def _one_batch(image_shape: tuple[int, int, int], n_classes: int) -> Dataset:
    """Return one batch of the size that trials train on; fewer images where they are large."""
    _, height, width = image_shape
    return noise(image_shape, n_classes, max(4, min(32, 2**16 // (height * width))), 1)


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


def _begun(sample: Sample, data: Dataset, settings: Settings) -> Training:
    training = Training(data, settings)
    config = {**sample.config, "batch_size": len(data.train), "accumulation_steps": 1}
    training.begin(sample.architecture, config, seed=0, epochs=100, source=sample.source, pretrained=False)
    return training


def _fastest(sample: Sample, data: Dataset, ways: Sequence[Settings]) -> dict[Settings, float]:
    """Return the images per second of each way: the best of a few steps, taken in turn."""
    end = time.perf_counter() + SECONDS
    speeds: dict[Settings, float] = {}
    trainings: dict[Settings, Training] = {}
    for way in ways:
        trainings[way] = _begun(sample, data, way)
        speeds[way] = _speed(trainings[way])  # it warms up, and is hardly ever the fastest
        if speeds[way] * HOPELESS < max(speeds.values()):
            del trainings[way]
    for _ in range(ROUNDS):
        for way, training in trainings.items():
            if time.perf_counter() < end:
                training.use(way)
                speeds[way] = max(speeds[way], _speed(training))
    return speeds


def _speed(training: Training) -> float:
    """Return images per second of an epoch; of one thread, by its own time, whatever else the machine does."""
    own = training.device.type == "cpu" and training.settings.threads == 1
    clock = time.thread_time if own else time.perf_counter
    start = clock()
    training.epoch()
    return len(training.train_indices) / (clock() - start)


def _side_by_side(sample: Sample, data: Dataset, settings: Settings, trials: int) -> float:
    """Return the images per second of so many trials together, in threads: they share memory and caches as
    processes do."""
    measured = min(trials, MOST_SIDE_BY_SIDE)
    ready = threading.Barrier(measured)
    speeds: list[float] = []

    def work() -> None:
        training = _begun(sample, data, settings)
        training.epoch()
        ready.wait()
        speeds.append(sum(training.epoch().images_per_second for _ in range(ROUNDS_TOGETHER)) / ROUNDS_TOGETHER)

    threads = [threading.Thread(target=work) for _ in range(measured)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(speeds) / measured * trials

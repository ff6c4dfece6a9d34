"""Measures, once per experiment, what its trials are fast at: precision, memory format, and cores per trial."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from foundation import RequestError
from trainables.batches import Dataset
from trainables.device import (
    best_device,
    computes_in_bf16,
    give_freed_memory_back,
    is_device_error,
    name_of,
    wait_until_idle,
)
from trainables.settings import Settings
from trainables.training import Training

# Coarser numbers, or fewer trials at a time, must be worth it; and what is alike is not left to chance: two searches
# with the same seed give the same figures only with the same settings.
GAIN_NEEDED = {"bf16": 1.2, "contiguous": 1.1, "all cores": 1.1, "captured": 1.1}
HOPELESS = 3.0  # so many times as slow as the best at its first step: not measured again
ROUNDS = 10  # of one sample on a busy machine, the best of 4 was off by 30 %
ROUNDS_TOGETHER = 3
SECONDS = 3.0  # per architecture; large images take longer, and fewer rounds then do
IDLE_SECONDS = 6.0  # at most; workers that start beside take 4 s
ALIKE, ALIKE_EPOCHS, ALIKE_BATCH = 0.1, 6, 16
AUGMENTATIONS = ("flip", "shift", "rotation", "zoom", "shear", "cutout")
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

    `precision` is `fp32`, `bf16`, or `auto`: then bf16 is taken only where the device has it and it is at least 1.2
    times as fast. The memory format is channels-last unless the other is 1.1 times as fast; on a GPU the steps of
    architectures that come with convscout are recorded and replayed where that is 1.1 times as fast and trains alike.
    `cores` and `gpus` are those of a trial. With
    `host_cores`, so many trials `beside` each other are measured against one on all cores of the host, which is taken
    where it trains 1.1 times as many images a second. An architecture takes a second or two at 32 x 32. Raises
    `RequestError` for a user's architecture that cannot be trained on such images.
    """
    device = best_device(gpus)
    settings: dict[str, Settings] = {}
    figures: dict[str, dict[str, float]] = {}
    precisions = ("fp32", "bf16")[: 1 + computes_in_bf16(device)] if precision == "auto" else (precision,)
    data = _one_batch(image_shape, n_classes)
    compares = host_cores is not None and host_cores > cores and device.type == "cpu"
    for sample in samples:
        ways = [Settings(device.type, name, last, cores) for name in precisions for last in (True, False)]
        with _blamed(sample):
            speeds = _fastest(sample, data, ways)
        best = _best(speeds)
        if device.type == "cuda":
            best, more = _captured_or_not(sample, data, best)
            speeds |= more
        settings[sample.architecture] = best
        figures[sample.architecture] = {_name(way): round(speed, 1) for way, speed in speeds.items()}
        if compares:
            wait_until_idle(IDLE_SECONDS)
            with _blamed(sample):
                several = _side_by_side(sample, data, best, beside)
            alone = max(_fastest(sample, data, [replace(best, threads=host_cores or cores)]).values())
            figures[sample.architecture] |= {"side by side": round(several, 1), "all cores": round(alone, 1)}
    if compares and all_cores_win(figures):
        cores = host_cores or cores
        settings = {name: replace(each, threads=cores) for name, each in settings.items()}
    give_freed_memory_back()
    return Calibrated(settings, cores, name_of(device), figures)


@contextmanager
def _blamed(sample: Sample) -> Iterator[None]:
    """Let what a user's own architecture does wrong be said of it, and not end the driver."""
    try:
        yield
    except Exception as error:
        if sample.source is None or is_device_error(error):
            raise
        remedy = ". Images come channels-last: use x.flatten(1)" if "view size" in str(error) else ""
        raise RequestError(
            f"architecture {sample.architecture!r}: its baseline cannot be trained on these images: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{remedy}"
        ) from error


def _best(speeds: Mapping[Settings, float]) -> Settings:
    """Return the fastest way, of those whose gain over fp32 and channels-last is worth it."""

    def worth(way: Settings) -> float:
        needed = GAIN_NEEDED["bf16"] if way.precision == "bf16" else 1.0
        return speeds[way] / (needed if way.channels_last else needed * GAIN_NEEDED["contiguous"])

    return max(speeds, key=worth)


def all_cores_win(figures: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the same images of every architecture take less time on all cores together."""
    beside = sum(1 / each["side by side"] for each in figures.values())
    alone = sum(1 / each["all cores"] for each in figures.values())
    return beside > GAIN_NEEDED["all cores"] * alone


def _captured_or_not(sample: Sample, data: Dataset, best: Settings) -> tuple[Settings, dict[Settings, float]]:
    """Return the best way, with its steps recorded where that pays, and what was measured for it.

    What a user's own network decides in Python, as by a number drawn there, a recording would repeat for ever: it is
    never recorded.
    """
    captured = replace(best, captured=True)
    if sample.source is not None or not trains_alike(sample, data.image_shape, data.n_classes, captured):
        return best, {}
    speeds = _fastest(sample, data, [best, captured])
    return (captured if speeds[captured] > GAIN_NEEDED["captured"] * speeds[best] else best), speeds


def single_speed(figures: Mapping[str, Mapping[str, float]], architecture: str) -> float:
    """Return the images a second at which one trial of an architecture was trained, given what `calibrate` found."""
    found = dict(figures[architecture])
    compared = found.pop("side by side", None) is not None  # what trials beside each other trained together
    if compared and not all_cores_win(figures):
        del found["all cores"]
    return max(found.values())


def _name(settings: Settings) -> str:
    name = f"{settings.precision} {'channels_last' if settings.channels_last else 'contiguous'}"
    return f"{name} captured" if settings.captured else name


def trains_alike(sample: Sample, image_shape: tuple[int, int, int], n_classes: int, captured: Settings) -> bool:
    """Return whether steps recorded and replayed train a model as the same steps do that are not.

    What a graph reads at the wrong place is not seen at once: the weights are compared after some epochs, with each
    kind of optimizer and a learning rate that changes. They must have moved as far and in the same direction; not to
    the same bits, since a GPU adds in any order, and what was close to zero then goes the other way.
    """
    data = noise(image_shape, n_classes, ALIKE_BATCH * 3 + ALIKE_BATCH // 2, ALIKE_BATCH)
    for optimizer in ("sgd", "adam", "rmsprop"):
        ways = []
        for way in (replace(captured, captured=False), captured):
            changes = {"batch_size": ALIKE_BATCH, "optimizer": optimizer, "momentum": 0.9}
            changes |= {"schedule": "one_cycle", "warmup_epochs": 0}
            training = _begun(sample, data, way, **{**changes, **_without_chance(sample.config)})
            before = _weights(training)
            for _ in range(ALIKE_EPOCHS):
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


def _begun(sample: Sample, data: Dataset, settings: Settings, **changes: Any) -> Training:
    training = Training(data, settings)
    config = {**sample.config, "batch_size": len(data.train), "accumulation_steps": 1, **changes}
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
        if speeds[way] * HOPELESS < max(speeds.values()) and not way.captured:  # its first step gets its memory
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

    def work(_: int) -> float:
        try:
            training = _begun(sample, data, settings)
            training.epoch()
        except BaseException:
            ready.abort()  # or the others would wait for it for ever
            raise
        ready.wait()
        return sum(training.epoch().images_per_second for _ in range(ROUNDS_TOGETHER)) / ROUNDS_TOGETHER

    with ThreadPoolExecutor(measured) as threads:
        running = [threads.submit(work, number) for number in range(measured)]
    errors = [error for each in running if (error := each.exception())]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError))
    return sum(each.result() for each in running) / measured * trials

"""Measures, once per experiment, what its trials are fast at: precision, memory format, and cores per trial."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from foundation import RequestError
from trainables.alike import trains_alike
from trainables.batches import Dataset
from trainables.device import (
    best_device,
    computes_in_bf16,
    give_freed_memory_back,
    is_device_error,
    name_of,
    wait_until_idle,
)
from trainables.samples import Sample, begun, lengthen, noise
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
# On a GPU an epoch is of several steps: of a single one, starting its kernels and waiting for its end would take most.
# So many seconds of them and so many steps at the most, and batches of so many pixels.
ON_GPU, GPU_PIXELS = (0.3, 20), 2**21
CPU_PIXELS = 2**16
MOST_SIDE_BY_SIDE = 16  # more measure the same


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
    compares = host_cores is not None and host_cores > cores and device.type == "cpu"
    for sample in samples:
        ways = [Settings(device.type, name, last, cores) for name in precisions for last in (True, False)]
        with _blamed(sample):
            data, speeds = _measured(device.type, sample, image_shape, n_classes, ways)
        best = _best(speeds)
        if device.type == "cuda" and sample.source is None:
            best, speeds = _captured_or_not(sample, data, best, speeds)
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


def _measured(
    device_type: str, sample: Sample, image_shape: tuple[int, int, int], n_classes: int, ways: Sequence[Settings]
) -> tuple[Dataset, dict[Settings, float]]:
    """Return the images per second of each way, and the images: fewer where a GPU has too little memory for a batch.

    A trial would try again with half of them.
    """
    if device_type == "cuda":
        data = _data(device_type, sample, image_shape, n_classes)
        try:
            return data, _fastest(sample, data, ways)
        except RuntimeError as error:
            if not is_device_error(error):
                raise
        give_freed_memory_back()
    data = _data("cpu", sample, image_shape, n_classes)
    return data, _fastest(sample, data, ways)


def _best(speeds: Mapping[Settings, float]) -> Settings:
    """Return the fastest way, of those whose gain over fp32 and channels-last is worth it."""
    return max(speeds, key=lambda way: _worth(way, speeds[way]))


def _worth(way: Settings, speed: float) -> float:
    needed = GAIN_NEEDED["bf16"] if way.precision == "bf16" else 1.0
    return speed / (needed if way.channels_last else needed * GAIN_NEEDED["contiguous"])


def all_cores_win(figures: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the same images of every architecture take less time on all cores together."""
    beside = sum(1 / each["side by side"] for each in figures.values())
    alone = sum(1 / each["all cores"] for each in figures.values())
    return beside > GAIN_NEEDED["all cores"] * alone


def _captured_or_not(
    sample: Sample, data: Dataset, best: Settings, speeds: Mapping[Settings, float]
) -> tuple[Settings, dict[Settings, float]]:
    """Return the best way, with its steps recorded where that pays, and what was measured of all ways.

    Precisions and formats are compared anew: a small network waits for its kernels to be started, and those of bf16
    are more. Not for a user's own network: what it decides in Python, as by a number drawn there, a recording would
    repeat for ever.
    """
    captured = [replace(way, captured=True) for way in speeds]
    try:
        found = _fastest(sample, data, [best, *captured])
        for way in sorted(captured, key=lambda way: -_worth(way, found[way])):
            if found[way] <= GAIN_NEEDED["captured"] * found[best]:
                break
            if trains_alike(sample, data.image_shape, data.n_classes, way):
                return way, {**speeds, way: found[way]}
    except RuntimeError as error:
        if isinstance(error, torch.AcceleratorError):  # nothing can be relied on after that
            raise
    return best, dict(speeds)


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


def _data(device_type: str, sample: Sample, image_shape: tuple[int, int, int], n_classes: int) -> Dataset:
    """Return one batch of the size that trials train on, fewer images where they are large."""
    _, height, width = image_shape
    most, pixels = (int(sample.config["batch_size"]), GPU_PIXELS) if device_type == "cuda" else (32, CPU_PIXELS)
    return noise(image_shape, n_classes, max(4, min(most, pixels // (height * width))), 1)


def _begun(sample: Sample, data: Dataset, way: Settings) -> Training:
    return begun(sample, data, way, batch_size=len(data.images) - len(data.val))


def _fastest(sample: Sample, data: Dataset, ways: Sequence[Settings]) -> dict[Settings, float]:
    """Return the images per second of each way: the best of a few steps, taken in turn."""
    on_gpu = ways[0].device == "cuda"
    end = time.perf_counter() + SECONDS
    speeds: dict[Settings, float] = {}
    trainings: dict[Settings, Training] = {}
    for way in ways:
        trainings[way] = _begun(sample, data, way)
        if on_gpu:
            _speed(trainings[way])  # it loads the kernels, for seconds
            lengthen(trainings[way], *ON_GPU)
            end = time.perf_counter() + SECONDS
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

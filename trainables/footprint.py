"""Measures what one trial takes of memory at its peak: its process's own of the host's, and its part of a GPU's."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainables.captured import WARM_UP
from trainables.device import PeakMemory, evaluation_batch, give_freed_memory_back, is_device_error
from trainables.samples import Sample, noise
from trainables.settings import Settings
from trainables.training import Training

FEW_IMAGES = 2  # of a first measurement on a CPU; a second one has about so many bytes of activations more:
MORE_BYTES = 2**26
LATE_EPOCH = 10**6  # by then all layers that are to train do
_STATUS = Path("/proc/self/status")
_SHARED = ("RssFile:", "RssShmem:")  # libraries and the memory-mapped cache: once on a host, however many processes


@dataclass(frozen=True)
class Footprint:
    """The bytes that a trial takes at its peak: of its host, those that its process shares with no other, and of a GPU,
    `context_bytes` of which are there before anything is computed; of `device_total` in all. 0 without a GPU."""

    host_bytes: int
    device_bytes: int = 0
    context_bytes: int = 0
    device_total: int = 0


def measure_footprint(
    sample: Sample,
    settings: Settings,
    image_shape: tuple[int, int, int],
    n_classes: int,
    n_val: int,
    kept_bytes: int,
    largest_bytes: int,
) -> Footprint | None:
    """Train two steps of a configuration, and return what they took; None where the system does not tell.

    On a GPU these are steps of its whole batch, and an evaluation of up to `n_val` images. On a CPU, where that could
    take minutes and all of the memory, they are of a few images and of some more, as `kept_bytes` of each say: memory
    is linear in the images. What the evaluation takes there is reckoned from `largest_bytes`, those of an image's
    largest tensor.
    """
    batch = int(sample.config["batch_size"])
    side = None if sample.source else sample.config.get("input_size")
    evaluated = min(n_val, evaluation_batch(settings.device, *image_shape[1:], side))
    if settings.device == "cuda":
        return _on_gpu(sample, settings, image_shape, n_classes, batch, evaluated)
    few = min(batch, FEW_IMAGES)
    more = min(batch, few + max(few, MORE_BYTES // max(1, kept_bytes)))
    found = [_peak(sample, settings, image_shape, n_classes, images) for images in (few, more)]
    if None in found:
        return None
    at_few, at_more = (float(each or 0) for each in found)
    each = max(0.0, at_more - at_few) / max(1, more - few)
    evaluation = at_few + 3 * largest_bytes * evaluated  # a layer's input and output, and what it computes with
    return Footprint(round(max(at_few + each * (batch - few), at_more, evaluation)))


def _peak(
    sample: Sample, settings: Settings, image_shape: tuple[int, int, int], n_classes: int, images: int
) -> float | None:
    """Return the most bytes that this process had to itself while it trained on so many images a step."""
    give_freed_memory_back()
    training = Training(noise(image_shape, n_classes, images, 1), settings)
    config = {**sample.config, "batch_size": images, "accumulation_steps": 1}
    _begin(training, sample, config)
    peak = PeakMemory(torch.device("cpu"))
    training.epoch()
    training.epoch()
    return _own(peak)


def _begin(training: Training, sample: Sample, config: Mapping[str, Any]) -> None:
    epochs = LATE_EPOCH + 10
    training.begin(sample.architecture, config, seed=0, epochs=epochs, source=sample.source, pretrained=False)
    training.epochs_done = LATE_EPOCH


def _own(peak: PeakMemory) -> float | None:
    """Return the peak of the process in bytes, without what it shares with others."""
    most = peak.megabytes()
    if most is None:
        return None
    with suppress(OSError, ValueError):
        lines = [line.split() for line in _STATUS.read_text().splitlines()]
        return most * 1e6 - sum(int(cells[1]) * 1024 for cells in lines if cells and cells[0] in _SHARED)
    return None


def _on_gpu(
    sample: Sample,
    settings: Settings,
    image_shape: tuple[int, int, int],
    n_classes: int,
    batch: int,
    evaluated: int,
) -> Footprint:
    """Return what was taken on the GPU that this process has to itself; all of it where that does not suffice."""
    device, host = torch.device(settings.device), PeakMemory(torch.device("cpu"))
    free, total = torch.cuda.mem_get_info(device)
    context = total - free - torch.cuda.memory_reserved(device)  # where the training does not get so far
    # What is recorded has memory of its own: of a step, and of an epoch's shorter last one.
    images, epochs = ((WARM_UP + 1) * batch + batch // 2, WARM_UP + 1) if settings.captured else (2 * batch, 1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        training = Training(noise(image_shape, n_classes, images, max(1, evaluated)), settings)
        _begin(training, sample, {**sample.config, "accumulation_steps": 1})
        torch.cuda.reset_peak_memory_stats(device)
        for _ in range(epochs):
            training.epoch()
        taken = torch.cuda.max_memory_reserved(device)
        free, _ = torch.cuda.mem_get_info(device)  # cuBLAS and cuDNN are loaded now
        context = total - free - torch.cuda.memory_reserved(device)
    except RuntimeError as error:
        if not is_device_error(error):
            raise
        taken = total
    return Footprint(round(_own(host) or 0), taken + context, context, total)

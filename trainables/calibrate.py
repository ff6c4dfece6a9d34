"""Measures, once per experiment, which precision and memory format the device is fast at."""

import time

import torch
from torch import nn

from trainables.device import best_device, name_of
from trainables.training import Settings

GAIN_NEEDED = 1.2  # bf16 must be this much faster to be worth its coarser numbers
ROUNDS = 3


def calibrate(precision: str, threads: int, gpus: float) -> tuple[Settings, str]:
    """Return the settings for the device of a trial that is given so many GPUs, and the device's name.

    `precision` is `fp32`, `bf16`, or `auto`: then bf16 is taken only where a small convolution net trains at least
    1.2 times as fast with it. Channels-last is taken where it is faster. Takes about a second.
    """
    torch.set_num_threads(threads)
    device = best_device(gpus)
    precisions = ["fp32", "bf16"] if precision == "auto" else [precision]
    seconds = {
        (name, channels_last): _step_seconds(device, name, channels_last)
        for name in precisions
        for channels_last in (False, True)
    }
    best = {name: min(seconds[name, False], seconds[name, True]) for name in precisions}
    chosen = precisions[0]
    if precision == "auto" and best["bf16"] * GAIN_NEEDED <= best["fp32"]:
        chosen = "bf16"
    channels_last = seconds[chosen, True] <= seconds[chosen, False]
    return Settings(device.type, chosen, channels_last, threads), name_of(device)


def _step_seconds(device: torch.device, precision: str, channels_last: bool) -> float:
    """Return the seconds of one training step of a three-block net on 32 images of 32 x 32, the best of a few."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = nn.Sequential(*layers).to(device).to(memory_format=memory_format)
    images = torch.rand(32, 3, 32, 32, device=device).contiguous(memory_format=memory_format)
    best = float("inf")
    for _ in range(ROUNDS + 1):  # the first round warms up, and is never the fastest
        start = time.perf_counter()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(images).float().square().mean()
        loss.backward()
        float(loss.item())
        best = min(best, time.perf_counter() - start)
    return best

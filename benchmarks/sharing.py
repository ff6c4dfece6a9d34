"""Trials side by side on one device: how many epochs of trials a second, for one trial, four, eight and sixteen.

On the GPU where there is one (each trial in a process of its own, with its own copy of the images), else on the cores.
"""

import os

import torch
from measure import Figures, options, ratios, table, tell

import spaces
from trainables.calibrate import calibrate
from trainables.device import best_device, name_of
from trainables.samples import Sample
from trainables.side_by_side import measure_rates

SHAPE, CLASSES, EPOCH_IMAGES = (3, 32, 32), 10, 5000
ON_GPU, ROUNDS, SECONDS = (1, 4, 8, 16), 5, 3.0


def main() -> None:
    """Measure the plain CNN's baseline at 32 x 32, in the settings that a search measures and takes."""
    keep = options(__doc__).parse_args().keep
    device, cores = best_device(), len(os.sched_getaffinity(0))
    on_gpu = device.type == "cuda"
    counts = ON_GPU if on_gpu else tuple(sorted({1, *(number for number in ON_GPU if number <= cores), cores}))
    sample = Sample("cnn", dict(spaces.load("cnn").baseline), None)
    settings = calibrate([sample], SHAPE, CLASSES, "auto", cores=1, gpus=float(on_gpu)).settings
    found: dict[int, list[float]] = {number: [] for number in counts}
    for _ in range(ROUNDS):
        rates = measure_rates(
            [sample], settings, SHAPE, CLASSES, counts=counts, gain_needed=0.0, cores=cores, seconds=SECONDS
        )
        for number, rate in rates.items():
            found[number].append(rate / EPOCH_IMAGES)
    alone = Figures(tuple(found[1]))
    rows = [
        (number, each, ratios(each, alone) if number > 1 else "")
        for number, each in ((number, Figures(tuple(values))) for number, values in found.items())
        if len(each.values) == ROUNDS
    ]
    text = table(("trials side by side", "trial-epochs a second, all together", "of one trial's"), rows)
    text += f"\n\nMedian (min–max) of {ROUNDS} in turn on {name_of(torch.device(device))}: cnn's baseline, "
    text += f"{settings['cnn'].precision}, {'recorded steps, ' if settings['cnn'].captured else ''}batches of "
    text += (
        f"{sample.config['batch_size']}, an epoch being {EPOCH_IMAGES:,} images of 32 x 32; a process and, on a CPU, "
    )
    text += "its share of the cores for each."
    tell("sharing.py", "Trials side by side on one device", text, keep)


if __name__ == "__main__":
    main()

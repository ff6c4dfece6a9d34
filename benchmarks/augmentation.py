"""Row 3: what full augmentation costs, in percent of an epoch's training time."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from cifar import calibrated, dataset, described
from measure import Figures, interleaved, table, tell

import spaces
from trainables.batches import Dataset
from trainables.settings import Settings
from trainables.training import Training

IMAGES = {"cnn": 960, "alexnet": 256, "vgg11": 256}
FULL = {"flip": 0.5, "shift": 0.1, "rotation": 15.0, "zoom": 0.15, "shear": 8.0, "cutout": 0.3}
ROUNDS = 5


def main() -> None:
    """Measure the three architectures at 32 x 32 with and without, in turn, one thread, as a search trains them."""
    torch.set_num_threads(1)
    rows = []
    for architecture, images in IMAGES.items():
        data, settings = dataset(images, 32), calibrated(architecture)
        strengths = {"without": {}, "full": FULL}
        contenders = {name: _epochs(architecture, data, settings, each) for name, each in strengths.items()}
        found = interleaved(contenders, ROUNDS)
        cost = _cost_percent(found["full"], found["without"])
        rows.append((architecture, described(settings), found["without"], found["full"], cost))
    text = table(
        ("architecture", "settings", "without, images/s", "full, images/s", "cost, % of the time without"), rows
    )
    text += f"\n\nMedian (min–max) of {ROUNDS} in turn, batches of 32, baselines, one thread, settings as calibrated; "
    text += f"without validation. Full is {', '.join(f'{name} {strength:g}' for name, strength in FULL.items())}."
    tell("augmentation.py", "What augmentation costs", text)


def _epochs(architecture: str, data: Dataset, settings: Settings, strengths: Mapping[str, Any]) -> Callable[[], float]:
    training = Training(data, settings)
    training.begin(architecture, {**spaces.load(architecture).baseline, **strengths}, seed=1, epochs=100)
    return lambda: training.epoch().images_per_second


def _cost_percent(full: Figures, without: Figures) -> Figures:
    """Return by how many percent an image takes longer, round by round."""
    return Figures(tuple(100 * (b / a - 1) for a, b in zip(full.values, without.values, strict=True)))


if __name__ == "__main__":
    main()

"""What full augmentation costs, in percent of an epoch's training time."""

import torch
from cifar import calibrated, dataset, described, epochs
from measure import Figures, interleaved, options, table, tell

import spaces

IMAGES = {"cnn": 960, "alexnet": 256, "vgg11": 256}
FULL = {"flip": 0.5, "shift": 0.1, "rotation": 15.0, "zoom": 0.15, "shear": 8.0, "cutout": 0.3}
ROUNDS = 5


def main() -> None:
    """Measure the three architectures at 32 x 32 with and without, in turn, one thread, as a search trains them."""
    keep = options(__doc__).parse_args().keep
    torch.set_num_threads(1)
    rows = []
    for architecture, images in IMAGES.items():
        data, settings = dataset(images, 32), calibrated(architecture)
        baseline = spaces.load(architecture).baseline
        configs = {"without": baseline, "full": {**baseline, **FULL}}
        contenders = {name: epochs(data, settings, architecture, config) for name, config in configs.items()}
        found = interleaved(contenders, ROUNDS)
        cost = _cost_percent(found["full"], found["without"])
        rows.append((architecture, described(settings), found["without"], found["full"], cost))
    text = table(
        ("architecture", "settings", "without, images/s", "full, images/s", "cost, % of the time without"), rows
    )
    text += f"\n\nMedian (min–max) of {ROUNDS} in turn, batches of 32, baselines, one thread, settings as calibrated, "
    text += "made images of 32 x 32; without validation. "
    text += f"Full is {', '.join(f'{name} {strength:g}' for name, strength in FULL.items())}."
    tell("augmentation.py", "What augmentation costs", text, keep)


def _cost_percent(full: Figures, without: Figures) -> Figures:
    """Return by how many percent an image takes longer, round by round."""
    return Figures(tuple(100 * (b / a - 1) for a, b in zip(full.values, without.values, strict=True)))


if __name__ == "__main__":
    main()

"""Row 1: an epoch of `Training` against a bare loop on tensors that are already in memory. No augmentation."""

import time

import torch
from cifar import dataset
from measure import interleaved, ratios, table, tell
from torch.nn import functional

import spaces
from trainables.batches import Dataset
from trainables.models import build_classifier
from trainables.recipe import split
from trainables.settings import Settings
from trainables.training import Training

IMAGES = {"cnn": 1000, "alexnet": 250, "vgg11": 250}
MATRIX = 2048


def main() -> None:
    """Measure the three architectures at 32 x 32, one thread, fp32, channels-last."""
    torch.set_num_threads(1)
    rows = []
    for architecture, images in IMAGES.items():
        data = dataset(images, 32)
        ours, bare = _ours(architecture, data), _Bare(architecture, data)
        found = interleaved({"ours": ours, "bare": bare, "matrix": _matrix_gflops}, rounds=5)
        share = bare.gflop_per_image() * found["bare"].median / found["matrix"].median
        rows.append((architecture, found["ours"], found["bare"], ratios(found["ours"], found["bare"]), f"{share:.0%}"))
    text = table(("architecture", "ours, images/s", "bare loop, images/s", "ours / bare", "bare loop's share"), rows)
    text += (
        "\n\nMedian (min–max) of 5 in turn, batches of 32, baselines, one thread, fp32, channels-last. The share is "
    )
    text += f"of the GFLOP/s of a {MATRIX} x {MATRIX} matrix product, measured in the same rounds ({found['matrix']})."
    tell("epoch.py", "An epoch against a bare loop", text)


def _ours(architecture: str, data: Dataset):  # type: ignore[no-untyped-def]
    training = Training(data, Settings())
    training.begin(architecture, spaces.load(architecture).baseline, seed=1, epochs=100)

    def measure() -> float:
        return training.epoch().images_per_second

    return measure


class _Bare:
    """The loop one would write by hand for speed: float tensors in memory, nothing measured, nothing kept."""

    def __init__(self, architecture: str, data: Dataset) -> None:
        recipe, knobs = split(spaces.load(architecture).baseline)
        model = build_classifier(architecture, data.image_shape, 10, knobs, mean=data.mean, deviation=data.deviation)
        self.model = model.to(memory_format=torch.channels_last)
        images = torch.from_numpy(data.images[data.train]).permute(0, 3, 1, 2).float()
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.from_numpy(data.labels[data.train])
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, fused=True)

    def __call__(self) -> float:
        start = time.perf_counter()
        self.model.train()
        for part in torch.randperm(len(self.images)).split(32):
            self.optimizer.zero_grad()
            functional.cross_entropy(self.model(self.images[part]), self.labels[part]).backward()
            self.optimizer.step()
        return len(self.images) / (time.perf_counter() - start)

    def gflop_per_image(self) -> float:
        """Return what a training step costs an image, forward and backward, as torch counts it."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            functional.cross_entropy(self.model(self.images[:32]), self.labels[:32]).backward()
        return counter.get_total_flops() / 32 / 1e9


def _matrix_gflops() -> float:
    a, b = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    start = time.perf_counter()
    a @ b
    return 2 * MATRIX**3 / (time.perf_counter() - start) / 1e9


if __name__ == "__main__":
    main()

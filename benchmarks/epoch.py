"""An epoch of `Training` against a bare loop over the same network, on tensors already in memory. No augmentation."""

import time
from functools import partial

import torch
from cifar import calibrated, dataset, described, epochs
from measure import interleaved, options, ratios, table, tell
from torch.nn import functional

import spaces
from trainables.batches import Dataset
from trainables.models import build_classifier
from trainables.recipe import split
from trainables.settings import Settings

IMAGES = {"cnn": 1000, "alexnet": 250, "vgg11": 250}
MATRIX = 2048


def main() -> None:
    """Measure the three architectures at 32 x 32, one thread, as a search would train them."""
    keep = options(__doc__).parse_args().keep
    torch.set_num_threads(1)
    rows = []
    for architecture, images in IMAGES.items():
        data, settings = dataset(images, 32), calibrated(architecture)
        ours = epochs(data, settings, architecture, spaces.load(architecture).baseline)
        bare = _Bare(architecture, data, settings)
        matrix = partial(_matrix_gflops, torch.bfloat16 if settings.precision == "bf16" else torch.float32)
        found = interleaved({"ours": ours, "bare": bare, "matrix": matrix}, rounds=5)
        share = bare.gflop_per_image() * found["bare"].median / found["matrix"].median
        speeds = (found["ours"], found["bare"], ratios(found["ours"], found["bare"]))
        rows.append((architecture, described(settings), *speeds, f"{share:.0%} of {found['matrix']}"))
    columns = ("architecture", "settings", "ours, images/s", "bare loop, images/s", "ours / bare", "bare loop's share")
    text = table(columns, rows)
    text += (
        "\n\nMedian (min–max) of 5 in turn, batches of 32, baselines, one thread, settings as calibrated, made images "
        "of 32 x 32, without validation. Both train the same network in one process: what is compared is our loop. It "
        "gives torch's Adam the weights in the order of the memory, which the bare loop does not. The share is "
    )
    text += f"of the GFLOP/s of torch's {MATRIX} x {MATRIX} matrix product in that precision, in the same rounds."
    tell("epoch.py", "An epoch against a bare loop", text, keep)


class _Bare:
    """The loop one would write by hand for speed over our network: float tensors in memory, nothing measured."""

    def __init__(self, architecture: str, data: Dataset, settings: Settings) -> None:
        recipe, knobs = split(spaces.load(architecture).baseline)
        model = build_classifier(architecture, data.image_shape, 10, knobs, mean=data.mean, deviation=data.deviation)
        memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model, self.in_bf16 = model.to(memory_format=memory_format), settings.precision == "bf16"
        images = torch.from_numpy(data.images[data.train]).permute(0, 3, 1, 2).float()
        self.images = images.contiguous(memory_format=memory_format)
        self.labels = torch.from_numpy(data.labels[data.train])
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, fused=True)

    def __call__(self) -> float:
        start = time.perf_counter()
        self.model.train()
        for part in torch.randperm(len(self.images)).split(32):
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.in_bf16):
                logits = self.model(self.images.index_select(0, part))  # `[part]` is slower
            functional.cross_entropy(logits.float(), self.labels[part]).backward()
            self.optimizer.step()
        return len(self.images) / (time.perf_counter() - start)

    def gflop_per_image(self) -> float:
        """Return what a training step costs an image, forward and backward, as torch counts it."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            functional.cross_entropy(self.model(self.images[:32]), self.labels[:32]).backward()
        return counter.get_total_flops() / 32 / 1e9


def _matrix_gflops(kind: torch.dtype) -> float:
    a, b = torch.rand(MATRIX, MATRIX).to(kind), torch.rand(MATRIX, MATRIX).to(kind)
    start = time.perf_counter()
    a @ b
    return 2 * MATRIX**3 / (time.perf_counter() - start) / 1e9


if __name__ == "__main__":
    main()

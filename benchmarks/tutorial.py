"""`Training.epoch()` against PyTorch's tutorial loop; with `--accuracy`, what the two of them learn.

The tutorial's loop runs in a process of its own, as it does for its users: what we set in ours (how memory is kept, how
threads are used) would speed it up, too.
"""

import statistics
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from cifar import calibrated, described, epochs
from decoding import write_cifar
from measure import ZIP, Figures, interleaved, options, ratios, table, tell
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import spaces
from trainables.batches import Dataset
from trainables.models import build_classifier
from trainables.models._dropout import Dropout
from trainables.recipe import split
from trainables.settings import Settings
from trainables.training import Training

IMAGES = {"cnn": 500, "alexnet": 320, "vgg11": 320}
ROUNDS = 5
TRAIN, VAL, EPOCHS = 5000, 5000, 5  # of the comparison of accuracies
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10, in 0..1


def main() -> None:
    """Measure the three architectures at 32 x 32, batches of 32, Adam, one thread: ours in the settings of a search."""
    parser = options(__doc__)
    parser.add_argument("--accuracy", action="store_true", help="what they learn, instead (six minutes)")
    parser.add_argument("--seeds", type=int, default=10, help="of each of the two, with --accuracy")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.accuracy:
        text = _accuracies(asked.seeds)
        tell("tutorial.py --accuracy", "What is learned, against PyTorch's tutorial loop", text, asked.keep)
    else:
        tell("tutorial.py", "An epoch against PyTorch's tutorial loop", _speeds(), asked.keep)


def _speeds() -> str:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for architecture, images in IMAGES.items():
            folder = Path(scratch, architecture)
            write_cifar(folder, images)
            data, settings = _dataset(folder), calibrated(architecture)
            with _Elsewhere(architecture, folder) as theirs:
                contenders = {
                    "ours": epochs(data, settings, architecture, _config(architecture)),
                    "fp32": epochs(data, Settings(), architecture, _config(architecture)),
                    "tutorial": theirs.epoch,
                }
                found = interleaved(contenders, ROUNDS)
            both = [ratios(found[name], found["tutorial"]) for name in ("ours", "fp32")]
            rows.append((architecture, described(settings), found["ours"], found["tutorial"], *both))
    columns = ("architecture", "settings", "ours, images/s", "tutorial loop, images/s", "ours / tutorial", "in fp32")
    text = f"\n\nMedian (min–max) of {ROUNDS} in turn, batches of 32, baselines, Adam, one thread, no augmentation, "
    text += "without validation. Ours trains on images that were decoded before, as a search does once for all trials: "
    text += "that is not counted. It has the settings that a search measures and takes, and beside it fp32 and "
    text += "channels-last. The tutorial loop, in a process of its own, is ImageFolder on JPEG files, ToTensor, "
    text += "Normalize, DataLoader (shuffle, no workers), fp32, NCHW; its network is ours without the normalisation "
    return table(columns, rows) + text + "and with torch's own dropout."


def _config(architecture: str) -> dict[str, Any]:
    return dict(spaces.load(architecture).baseline) | {"weight_decay": 0.0}  # as the tutorial has it


class _Tutorial:
    """The loop of PyTorch's tutorials, reading files; nothing in it is tuned."""

    def __init__(self, architecture: str, train: Path, val: Path | None = None) -> None:
        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
        self.loader = DataLoader(ImageFolder(str(train), transform), batch_size=32, shuffle=True, num_workers=0)
        self.val_loader = DataLoader(ImageFolder(str(val), transform), batch_size=32) if val else None
        recipe, knobs = split(_config(architecture))
        self.model: nn.Module = build_classifier(architecture, (3, 32, 32), 10, knobs, mean=[0.0], deviation=[1.0]).net
        for module in self.model.modules():
            if isinstance(module, Dropout):
                module.__class__ = nn.Dropout
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.learning_rate)
        self.loss = nn.CrossEntropyLoss()

    def epoch(self) -> float:
        """Train one epoch and return images per second."""
        start = time.perf_counter()
        self.model.train()
        for number, (images, labels) in enumerate(self.loader):
            self.optimizer.zero_grad()
            loss = self.loss(self.model(images), labels)
            loss.backward()
            self.optimizer.step()
            if number % 100 == 0:
                loss.item()
        return len(self.loader.dataset) / (time.perf_counter() - start)  # type: ignore[arg-type]

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the share of validation images that are classified correctly."""
        assert self.val_loader
        self.model.eval()
        hits = [self.model(images).argmax(1) == labels for images, labels in self.val_loader]
        return torch.cat(hits).double().mean().item()


class _Elsewhere:
    """A `_Tutorial` in a process of its own."""

    def __init__(self, architecture: str, train: Path) -> None:
        context = get_context("spawn")
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_serve, args=(there, architecture, train), daemon=True)

    def __enter__(self) -> "_Elsewhere":
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()

    def epoch(self) -> float:
        """Train one epoch there and return images per second."""
        self.connection.send("epoch")
        speed: float = self.connection.recv()
        return speed


def _serve(connection: Connection, architecture: str, train: Path) -> None:
    torch.set_num_threads(1)
    tutorial = _Tutorial(architecture, train)
    while connection.recv():
        connection.send(tutorial.epoch())


def _dataset(train: Path, val: Path | None = None) -> Dataset:
    """Return the files of two folders, decoded; the first 32 of `train` are for validation where no `val` is given."""
    files = [sorted(folder.glob("*/*.jpg")) for folder in (train, val) if folder]
    images = np.stack([cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for part in files for file in part])
    names = sorted({file.parent.name for file in files[0]})
    labels = np.array([names.index(file.parent.name) for part in files for file in part])
    cut, count = len(files[0]), len(labels)
    mean, deviation = (tuple(255 * each for each in figures) for figures in (MEAN, DEVIATION))
    val_rows = np.arange(cut, count) if val else np.arange(32)
    return Dataset(images.astype(np.uint8), labels, np.arange(cut), val_rows, 10, mean, deviation)


def _accuracies(seeds: int) -> str:
    """Return a table of validation accuracies after the same epochs at the same learning rate, and their difference."""
    if not ZIP.exists():
        sys.exit(f"accuracies are compared on CIFAR-10, and {ZIP} is not there: CONVSCOUT_CIFAR10 names a zip of it")
    with tempfile.TemporaryDirectory() as scratch:
        train, val = Path(scratch, "train"), Path(scratch, "val")
        write_cifar(train, TRAIN)
        write_cifar(val, VAL, skip=TRAIN)
        ours, theirs = Figures(()), Figures(())
        settings = calibrated("cnn")
        training = Training(_dataset(train, val), settings)
        for seed in range(seeds):
            training.begin("cnn", _config("cnn"), seed=seed, epochs=EPOCHS)
            results = [training.epoch() for _ in range(EPOCHS)]
            ours = Figures((*ours.values, 100 * float(results[-1].val_accuracy or 0)))
            torch.manual_seed(1000 + seed)
            tutorial = _Tutorial("cnn", train, val)
            for _ in range(EPOCHS):
                tutorial.epoch()
            theirs = Figures((*theirs.values, 100 * tutorial.accuracy()))
    low, high = _welch_interval(ours.values, theirs.values)
    difference = statistics.mean(ours.values) - statistics.mean(theirs.values)
    text = table(("cnn", f"ours, {described(settings)}", "tutorial loop"), [("val_accuracy, %", ours, theirs)])
    text += f"\n\nMedian (min–max) of {seeds} seeds after {EPOCHS} epochs on {TRAIN:,} CIFAR-10 images, "
    text += f"measured on {VAL:,} others. "
    return text + f"Ours minus theirs, of the means: {difference:+.2f} points (95 %: {low:+.2f} to {high:+.2f}, Welch)."


def _welch_interval(ours: tuple[float, ...], theirs: tuple[float, ...]) -> tuple[float, float]:
    from scipy.stats import ttest_ind

    interval = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


if __name__ == "__main__":
    main()

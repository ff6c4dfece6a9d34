"""Batches: images that stay on the device as uint8, taken by index; augmentation as tensor functions on a batch."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from foundation import seed_from
from trainables.cache import ImageCache
from trainables.device import memory_bytes
from trainables.recipe import Recipe

MOST_OF_FREE = 0.6
DEVICE_MEMORY_SHARE = 0.3  # of a GPU's memory; the rest is for the model, its gradients and activations


@dataclass(frozen=True)
class Dataset:
    """What training reads: images N x H x W x C (uint8), N labels, and which of them are for what.

    `mean` and `deviation` are those of the training split, per channel, in 0..255 units. `features` is a folder where
    what frozen layers make of these images is kept; None keeps nothing. `folds` gives the rows that each fold of a
    cross-validation holds out, given their number.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    n_classes: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    features: Path | None = None
    folds: Callable[[int], list[NDArray[np.int64]]] | None = None

    def fold(self, index: int, number: int) -> "Dataset":
        """Return the same images, of which fold `index` of `number` validates and all others train."""
        assert self.folds is not None
        val = np.sort(self.folds(number)[index])
        return replace(self, train=np.setdiff1d(np.concatenate([self.train, self.val]), val), val=val)

    @classmethod
    def from_cache(cls, cache: ImageCache) -> "Dataset":
        """Return the train and validation images of a cache, memory-mapped; the test split stays closed."""
        images, labels = cache.arrays()
        return cls(
            images=images,
            labels=labels,
            train=cache.indices("train"),
            val=cache.indices("val"),
            n_classes=len(cache.classes),
            mean=cache.mean,
            deviation=cache.deviation,
            features=cache.folder / "features",
            folds=cache.folds,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, height, width, channels = self.images.shape
        return channels, height, width


class Batches:
    """The images of a data set on a device, or on the host when they do not fit; batches are index slices.

    Images are kept N x H x W x C: seen as N x C x H x W that already is torch's channels-last order, so a batch
    costs one gather and one conversion.
    """

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        free, total = (0, 0) if device.type == "cpu" else memory_bytes(device)
        # Of all of it: how many trials share a GPU is planned so, and those that come first leave less free.
        most_bytes = min(round(free * MOST_OF_FREE), round(total * DEVICE_MEMORY_SHARE))
        self.images = on_device(dataset.images, device, most_bytes)
        self.labels = torch.from_numpy(np.asarray(dataset.labels)).to(self.images.device)
        self.device = device

    def take(self, indices: Tensor, memory_format: torch.memory_format = torch.channels_last) -> tuple[Tensor, Tensor]:
        """Return the images (float, N x C x H x W, 0..255) and labels at indices that lie where `images` do."""
        rows = self.images.index_select(0, indices)  # whole rows: `[indices]` gathers value by value, 1 % of an epoch
        images = rows.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        return images.to(torch.float32).contiguous(memory_format=memory_format), self.labels_of(indices)

    def labels_of(self, indices: Tensor) -> Tensor:
        """Return the labels at indices."""
        return self.labels[indices].to(self.device, non_blocking=True)


def on_device(array: NDArray[Any], device: torch.device, most_bytes: int) -> Tensor:
    """Return an array as a tensor: a copy on the device if it takes at most so many bytes there, else on the host."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the map is read-only on purpose: nothing here writes to it
        tensor = torch.from_numpy(array)
    return tensor.to(device) if device.type == "cpu" or array.nbytes <= most_bytes else tensor


@dataclass(frozen=True)
class Grace:
    """The first `epochs` of a trial are each trained on a share of the images, drawn anew."""

    epochs: int = 0
    images: float = 1.0

    def share(self, epoch: int) -> float:
        """Return the share of the images that an epoch, counted from 1, is trained on."""
        return self.images if epoch <= self.epochs else 1.0

    def order(self, rows: Tensor, seed: int, epochs_done: int) -> Tensor:
        """Return the rows of the next epoch, in their random order: two at least, which batch norm needs."""
        generator = torch.Generator().manual_seed(seed_from(seed, epochs_done))
        order = rows[torch.randperm(len(rows), generator=generator)]
        return order[: max(2, round(self.share(epochs_done + 1) * len(rows)))]


def micro_batches(order: Tensor, batch_size: int, accumulation_steps: int, divisor: int = 1) -> Iterator[list[Tensor]]:
    """Yield, for each optimizer step, the index slices of its micro-batches.

    The last step takes what is left; a single image left over is dropped, since batch norm cannot use it. Each slice
    is cut into `divisor` parts, which leaves the images of a step as they are; not into single images.
    """
    slices = torch.split(order, batch_size)
    if len(slices) > 1 and len(slices[-1]) == 1 < batch_size:
        slices = slices[:-1]
    for start in range(0, len(slices), accumulation_steps):
        step = slices[start : start + accumulation_steps]
        yield [part for each in step for part in (each.chunk(divisor) if len(each) >= 2 * divisor else (each,))]


def balanced_weights(labels: NDArray[np.int64], n_classes: int, device: torch.device) -> Tensor:
    """Return one weight a class, inversely to its count and 1 on the average image."""
    counts = np.bincount(labels, minlength=n_classes)
    weights = len(labels) / (n_classes * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=device)


def augment(images: Tensor, recipe: Recipe, mean: Tensor, generator: torch.Generator) -> Tensor:
    """Return the batch (N x C x H x W) with each image changed in its own way, as strongly as the recipe says.

    Flip, shift, rotation, zoom and shear are one affine resampling, edges repeated; cutout (DeVries and Taylor,
    2017) sets a square to `mean` (per channel). Without any strength the batch is returned as it is.
    """
    lies_last = images.is_contiguous(memory_format=torch.channels_last)
    if recipe.flip or recipe.shift or recipe.rotation or recipe.zoom or recipe.shear:
        grid = functional.affine_grid(_affine(images, recipe, generator), list(images.shape), align_corners=False)
        images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if recipe.cutout:  # while the resampled images lie channel by channel: channels-last, three values go at a time
        images = torch.where(_cutout(images, recipe.cutout, generator), mean.view(1, -1, 1, 1), images)
    return images.contiguous(memory_format=torch.channels_last) if lies_last else images


def _affine(images: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Return N x 2 x 3 matrices from output to input coordinates (-1..1), drawn evenly within each strength."""
    count, device = len(images), images.device

    def evenly(strength: float) -> Tensor:
        return (torch.rand(count, generator=generator, device=device) * 2 - 1) * strength

    angle, shear = evenly(math.radians(recipe.rotation)), torch.tan(evenly(math.radians(recipe.shear)))
    scale = 1 + evenly(recipe.zoom)
    mirror = torch.where(torch.rand(count, generator=generator, device=device) < recipe.flip, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift_x, shift_y = evenly(2 * recipe.shift), evenly(2 * recipe.shift)  # the side is 2 units long
    rows = [cosine * mirror, -sine + cosine * shear, shift_x, sine * mirror, cosine + sine * shear, shift_y]
    return torch.stack(rows, dim=1).view(count, 2, 3)


def _cutout(images: Tensor, side: float, generator: torch.Generator) -> Tensor:
    """Return an N x 1 x H x W mask that is true in one square an image, `side` of its side long."""
    count, _, height, width = images.shape
    device = images.device
    centre_y = torch.rand(count, 1, 1, 1, generator=generator, device=device) * height
    centre_x = torch.rand(count, 1, 1, 1, generator=generator, device=device) * width
    rows = torch.arange(height, device=device).view(1, 1, height, 1) + 0.5
    columns = torch.arange(width, device=device).view(1, 1, 1, width) + 0.5
    mask: Tensor = ((rows - centre_y).abs() < side * height / 2) & ((columns - centre_x).abs() < side * width / 2)
    return mask

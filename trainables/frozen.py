"""What frozen layers make of every image: computed once per host, and read by all trials that freeze the same."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foundation import written_beside
from trainables.batches import DEVICE_MEMORY_SHARE, Batches, on_device
from trainables.device import evaluation_batch, memory_bytes
from trainables.models import Classifier
from trainables.rows import write_array

Augment = Callable[[Tensor], Tensor]
Autocast = Callable[[], AbstractContextManager[object]]

FORMAT_VERSION = 2
FREE_DISK_SHARE = 0.25  # of what is free, or would be without features: the rest is left to others


@dataclass(frozen=True)
class Frozen:
    """The features of every image of a data set, in its order, and the layers that go on from them."""

    features: Tensor
    rest: nn.Module

    def take(self, indices: Tensor, device: torch.device) -> Tensor:
        """Return the features of some images on a device."""
        return self.features[indices.to(self.features.device)].to(device, non_blocking=True)


class FrozenLayers:
    """What the frozen layers of one trial's model give for all images, looked up once for each way it is asked for.

    `folder` is where it is kept; None keeps nothing. `not_kept` says that layers were frozen at some time, and that
    what they give could not be kept: they compute each time.
    """

    def __init__(self, folder: Path | None, model: Classifier, batches: Batches) -> None:
        self.folder, self.model, self.batches = folder, model, batches
        self.not_kept = False
        self._known: dict[Any, Frozen | None] = {}

    def features(self, name: tuple[object, ...], autocast: Autocast, augmented: Augment | None) -> Frozen | None:
        """Return what they give for all images, None where none are frozen or nothing is kept.

        `name` says, beside the weights, what it depends on. `autocast` sets the precision of the layers, `augmented`
        changes each batch of images first; neither is kept, for both know the training that this belongs to.
        """
        if self.folder is None:
            return None
        key = (tuple(parameter.requires_grad for parameter in self.model.parameters()), name)
        if key not in self._known:
            self._known[key] = self._found(self.folder, name, autocast, augmented)
        return self._known[key]

    def _found(
        self, folder: Path, name: tuple[object, ...], autocast: Autocast, augmented: Augment | None
    ) -> Frozen | None:
        model, batches = self.model, self.batches
        if (halves := model.halves()) is None:
            return None
        frozen, rest = halves
        count, height, width, _ = batches.images.shape

        def parts() -> Iterator[Tensor]:
            every = torch.arange(count, device=batches.images.device)
            for rows in torch.split(every, evaluation_batch(batches.device.type, height, width, model.input_size)):
                images, _ = batches.take(rows)
                with torch.inference_mode():
                    if augmented:  # as in training, not in bf16: its places in an image are a pixel apart
                        images = augmented(images)
                    with autocast():
                        yield frozen(model.prepared(images))

        named = identity(frozen, *name, model.input_size, model.mean.tolist(), model.deviation.tolist())
        was_training = model.training
        model.eval()
        found = stored(folder, named, count, parts)
        model.train(was_training)
        self.not_kept = self.not_kept or found is None
        if found is None:
            return None
        free = 0 if batches.device.type == "cpu" else memory_bytes(batches.device)[0]
        return Frozen(on_device(found, batches.device, round(free * DEVICE_MEMORY_SHARE)), rest)


def identity(frozen: nn.Module, *others: object) -> str:
    """Return a name for what a frozen part gives: it differs where a weight, a layer or any of `others` does."""
    digest = hashlib.sha256(repr((FORMAT_VERSION, str(frozen), getattr(frozen, "code", ""), *others)).encode())
    for name, tensor in sorted(frozen.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def stored(folder: Path, name: str, count: int, parts: Callable[[], Iterator[Tensor]]) -> NDArray[np.float32] | None:
    """Return the features called `name` in `folder`, mapped read-only; computed from `parts` where they are not there.

    `parts` yields them for all `count` images in order. Only one process of the host computes, and the others wait for
    it. Where all features of the folder would take more than a quarter of the free disk, those that were not used for
    longest go; processes that have them mapped keep them. None where that is not enough, or they cannot be written.
    """
    path = folder / f"{name}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _read_or_computed(path, count, parts)
    except OSError:  # another user's cache, or a disk that is full: the layers compute every time
        return None


def _read_or_computed(path: Path, count: int, parts: Callable[[], Iterator[Tensor]]) -> NDArray[np.float32] | None:
    with _alone(path.with_suffix(".lock")):
        with suppress(OSError, ValueError):
            found: NDArray[np.float32] = np.load(path, mmap_mode="r")
            os.utime(path)
            return found
        each = parts()
        first = next(each)
        shape = (count, *first.shape[1:])
        if not _room(path.parent, 4 * int(np.prod(shape))):
            return None
        with written_beside(path) as beside:
            write_array(beside, shape, np.float32, _arrays(first, each))
    computed: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return computed


def _room(folder: Path, needed: int) -> bool:
    """Remove what was used longest ago until so many bytes have room; whether they have."""
    sizes = {path: path.stat() for path in folder.glob("*.npy")}
    held = sum(each.st_size for each in sizes.values())
    allowed = FREE_DISK_SHARE * (shutil.disk_usage(folder).free + held)
    if needed > allowed:
        return False
    for path in sorted(sizes, key=lambda path: sizes[path].st_mtime):
        if held + needed <= allowed:
            break
        path.unlink(missing_ok=True)
        held -= sizes[path].st_size
    return True


def _arrays(first: Tensor, others: Iterator[Tensor]) -> Iterator[NDArray[np.float32]]:
    yield first.float().cpu().numpy()
    for part in others:
        yield part.float().cpu().numpy()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process of the host at a time go on; a process that dies lets the next one go on."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress(OSError):  # where the file system knows no locks, all compute
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""Data sets that have a name: scikit-learn's digits, and three that torchvision downloads.

Each is offered as a tree of PNG files, lossless and made on reading, so that everything behind this module
sees one form of data only.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation import RequestError, cache_root
from trainables.sources import Tree, digest

# The name on the command line, and torchvision's class; digits comes with scikit-learn.
_TORCHVISION = {"cifar10": "CIFAR10", "fashion_mnist": "FashionMNIST", "mnist": "MNIST"}
BUILTIN = ("digits", *_TORCHVISION)


class BuiltinSource:
    """A named data set as a tree: digits as CLASS/image, the others as train|test/CLASS/image."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def key(self) -> str:
        """Return 64 hexadecimal digits that identify the content."""
        return digest("builtin", [self._name])

    @cached_property
    def _images(self) -> dict[str, NDArray[np.uint8]]:
        return _digits() if self._name == "digits" else _downloaded(self._name)

    def tree(self) -> Tree:
        """Return what is in there; downloads it first where that is needed."""
        folders = {path.rpartition("/")[0] for path in self._images}
        folders |= {folder.partition("/")[0] for folder in folders}
        return Tree(tuple(sorted(self._images)), tuple(sorted(folders)), ())

    def read(self, path: str) -> bytes:
        """Return one image as a PNG file."""
        pixels = self._images[path]
        bgr = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".png", bgr)[1].tobytes()

    def elsewhere(self, paths: Sequence[str]) -> None:
        """Return None: it was downloaded, or made, on this host alone."""


def _digits() -> dict[str, NDArray[np.uint8]]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return {f"{label}/{index:04d}.png": pixels[index] for index, label in enumerate(labels)}


def _downloaded(name: str) -> dict[str, NDArray[np.uint8]]:
    folder = cache_root() / "downloads"
    images = {}
    for split, train in (("train", True), ("test", False)):
        try:
            data_set = _torchvision(name, str(folder), train)
        except (OSError, RuntimeError) as error:
            raise RequestError(
                f"data {name!r} could not be downloaded to {str(folder)!r} ({error}): try again with a network, "
                f"put its files there, or use 'digits', which needs none"
            ) from error
        # "0 - zero" is MNIST's name for a digit; "T-shirt/top" must not become a folder and a file.
        classes = [label.split(" - ")[0].replace("/", "-") for label in data_set.classes]
        pixels = np.asarray(data_set.data, np.uint8)
        for index, target in enumerate(data_set.targets):
            images[f"{split}/{classes[int(target)]}/{index:05d}.png"] = pixels[index]
    return images


def _torchvision(name: str, folder: str, train: bool) -> Any:
    import torchvision.datasets

    return getattr(torchvision.datasets, _TORCHVISION[name])(folder, train=train, download=True)

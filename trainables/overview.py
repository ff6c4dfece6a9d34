"""What a prepared data set looks like: its numbers as plain values, and a contact sheet of its classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation import written_beside
from trainables.cache import ImageCache

_MOST_CLASSES = 40
_LABEL_WIDTH = 180
_GAP = 4


@dataclass(frozen=True)
class ClassRow:
    """How many images of one class are in each split."""

    name: str
    train: int
    val: int
    test: int

    @property
    def total(self) -> int:
        """Return the number of images over all splits."""
        return self.train + self.val + self.test


@dataclass(frozen=True)
class Overview:
    """The numbers of a data set.

    `width` and `height` are {min, median, max} of the files in pixels; `imbalance` is the largest class over the
    smallest in the training split; `duplicates_within` counts further copies of an image, exact or near, in a split;
    `leaks` are the `n_leaks` pairs of copies in different splits, of which `left_out` images are not used;
    `refused` is {path, reason} of each file that is not used.
    """

    data: str
    rows: tuple[ClassRow, ...]
    image_shape: tuple[int, int, int]
    resize: str
    width: dict[str, float]
    height: dict[str, float]
    imbalance: float
    duplicates_within: dict[str, int]
    n_leaks: int
    left_out: int
    leaks: tuple[dict[str, Any], ...]
    refused: tuple[dict[str, str], ...]
    split: dict[str, Any]

    @property
    def n_images(self) -> int:
        """Return the number of images that are used."""
        return sum(row.total for row in self.rows)


def overview(cache: ImageCache) -> Overview:
    """Return the numbers of a prepared data set."""
    counts = cache.counts
    rows = tuple(
        ClassRow(name, counts["train"][name], counts["val"][name], counts["test"][name]) for name in cache.classes
    )
    in_train = [row.train for row in rows]
    duplicates = cache.manifest["duplicates"]
    return Overview(
        data=cache.data,
        rows=rows,
        image_shape=cache.image_shape,
        resize=cache.resize,
        width=cache.manifest["sizes"]["width"],
        height=cache.manifest["sizes"]["height"],
        imbalance=max(in_train) / min(in_train),
        duplicates_within=duplicates["within"],
        n_leaks=duplicates["across_splits"],
        left_out=duplicates["left_out"],
        leaks=tuple(duplicates["pairs"]),
        refused=tuple(cache.refused),
        split=cache.manifest["split"],
    )


def contact_sheet(cache: ImageCache, path: Path, per_class: int = 8) -> None:
    """Write a PNG with a row of training images for each class, at most 40 classes, the name on the left.

    The images are taken evenly over the class and shown as they are trained on. Characters that are not ASCII
    become "?" in the names.
    """
    images, labels = cache.arrays()
    train = cache.indices("train")
    tile = min(max(cache.image_shape[1], 48), 96)
    width = _LABEL_WIDTH + per_class * (tile + _GAP)
    sheet_rows = []
    for label, name in enumerate(cache.classes[:_MOST_CLASSES]):
        found = train[labels[train] == label]
        chosen = found[np.linspace(0, len(found) - 1, min(per_class, len(found))).round().astype(int)]
        sheet_rows.append(_row(name, images[chosen], tile, width))
    left_out = len(cache.classes) - _MOST_CLASSES
    if left_out > 0:
        sheet_rows.append(_row(f"and {left_out} more", images[:0], tile, width))
    encoded = cv2.imencode(".png", np.concatenate(sheet_rows))[1]
    with written_beside(path) as beside:
        beside.write_bytes(encoded.tobytes())


def _row(name: str, images: NDArray[np.uint8], tile: int, width: int) -> NDArray[np.uint8]:
    """Return one row of the sheet, BGR on white."""
    row = np.full((tile + _GAP, width, 3), 255, np.uint8)
    text = name.encode("ascii", "replace").decode()
    text = text if len(text) <= 20 else text[:18] + ".."
    cv2.putText(row, text, (8, tile // 2 + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    for column, image in enumerate(images):
        bgr = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, ::-1]
        interpolation = cv2.INTER_NEAREST if image.shape[0] < tile else cv2.INTER_AREA
        left = _LABEL_WIDTH + column * (tile + _GAP)
        row[:tile, left : left + tile] = cv2.resize(
            np.ascontiguousarray(bgr), (tile, tile), interpolation=interpolation
        )
    return row

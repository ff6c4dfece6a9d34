"""What a prepared data set looks like: its numbers as plain values, and which of its images are worth a look."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from trainables.cache import ImageCache
from trainables.decode import BadImage, probe_size
from trainables.duplicates import signatures, twins
from trainables.images import open_source

_AT_ONCE = 256  # images whose low frequencies are taken together


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

    def was_left_out(self, leak: dict[str, Any]) -> bool:
        """Say whether the image of one of `leaks` is not used: only those of a split that was given can be left out."""
        return self.left_out > 0 and leak["split"] in self.split["given"]


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


def examples(cache: ImageCache, per_class: int) -> tuple[tuple[int, ...], ...]:
    """Return, for each class, rows of `cache.arrays()`: at most `per_class` training images, evenly over the class."""
    labels, train = cache.arrays()[1], cache.indices("train")
    chosen = []
    for label in range(len(cache.classes)):
        rows = train[labels[train] == label]
        evenly = np.linspace(0, len(rows) - 1, min(per_class, len(rows))).round().astype(int)
        chosen.append(tuple(rows[evenly].tolist()))
    return tuple(chosen)


def copies(cache: ImageCache) -> tuple[tuple[int, ...], ...]:
    """Return groups of rows of `cache.arrays()` that show one picture, exact copies or near, ascending in each.

    The cache keeps their number alone, so they are looked for again, among the training and validation images: the
    test images stay closed. Those that share a picture across classes come first, then the largest groups.
    """
    images, labels = cache.arrays()

    def pictures(rows: slice) -> NDArray[np.uint8]:
        pixels = images[rows]
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))

    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(images), _AT_ONCE)]
    digests = [blake3(image.tobytes()).digest() for image in images]
    low = np.concatenate([signatures(pictures(part)) for part in parts])
    first = twins(low, digests, labels, lambda row: pictures(slice(row, row + 1))[0])
    groups: dict[int, list[int]] = defaultdict(list)
    for row, leader in enumerate(first.tolist()):
        groups[leader].append(row)
    found = [tuple(rows) for rows in groups.values() if len(rows) > 1]
    return tuple(sorted(found, key=lambda rows: (-len({int(labels[row]) for row in rows}), -len(rows), rows)))


def original_sides(cache: ImageCache, data: str, most: int = 1000) -> NDArray[np.int64]:
    """Return the short and the long side (n, 2), in pixels, of at most `most` training and validation files.

    They are taken evenly over the paths in order and read from the files' headers, since the cache keeps only the
    least, the median and the most of all sides. A file that has gone meanwhile is passed over. `data` is what `cache`
    was prepared from; raises `RequestError` where that cannot be opened any more.
    """
    source, paths = open_source(data), cache.paths()
    sides = []
    for index in np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int):
        try:
            sides.append(sorted(probe_size(source.read(paths[index]))))
        except (BadImage, OSError, KeyError):
            continue
    return np.array(sides, np.int64).reshape(-1, 2)

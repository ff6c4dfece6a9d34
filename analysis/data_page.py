"""The page of a data set: what `convscout data` prints, and the images themselves, before anything is trained."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from analysis import data_words
from analysis.html import render_page
from analysis.pictures import jpeg_data_uri, png_data_uri
from analysis.wording import percent
from foundation import count, written_beside
from trainables.cache import ImageCache
from trainables.overview import ClassRow, Overview, copies, examples, original_sides, overview

# Bounds on the size of the file, in which a thumbnail takes 1 to 6 kB: two lines of six for each class while there
# are few, then one, and of a great many classes the largest.
IN_A_LINE, MOST_CLASSES_IN_TWO_LINES, MOST_CLASSES = 6, 150, 500
MOST_GROUPS, MOST_PER_GROUP = 40, 6
# Twice what the page shows, for dense displays.
_THUMBNAIL_PX = 144
# Smaller images are kept pixel by pixel, and shown so.
_SMALL_PX = 64
# Lists of file names that are longer fold away.
FOLDED_FROM = 20

_SIDES_PX = (1, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
_SHAPES = (
    (1.05, "square"),
    (1.3, "up to 1.3 : 1 (5 : 4)"),
    (1.4, "up to 1.4 : 1 (4 : 3)"),
    (1.6, "up to 1.6 : 1 (3 : 2)"),
    (2.0, "up to 2 : 1 (16 : 9)"),
    (3.0, "up to 3 : 1"),
    (float("inf"), "longer"),
)


@dataclass(frozen=True)
class Thumbnail:
    """One image for the page: as a data URI, with what to call it; `small` ones are shown pixel by pixel."""

    uri: str
    path: str
    label: str
    split: str
    small: bool


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, with its length in 0..100."""

    name: str
    count: int
    percent: float


def write_data_page(data: str, cache: ImageCache, path: Path) -> None:
    """Write the page of `cache`, which was prepared from `data`, whole or not at all.

    Only training and validation images are in it. Raises `RequestError` where `data` cannot be read any more.
    """
    page = render(data, cache)
    with written_beside(path) as beside:
        beside.write_text(page, encoding="utf-8")


def render(data: str, cache: ImageCache) -> str:
    """Return the page of `cache`, which was prepared from `data`, as one HTML text."""
    found, gallery = overview(cache), _Gallery(cache)
    rows = data_words.largest_first(found)
    sides = original_sides(cache, data)
    groups = _groups(cache, found)
    return render_page(
        "data.html",
        name=data,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        found=found,
        summary=(*data_words.summary(found), data_words.refused(found)),
        rows=rows,
        largest=max(row.total for row in rows),
        sheets=_sheets(cache, gallery, rows),
        histograms=histograms(sides),
        size_sentences=size_sentences(sides, found, len(gallery.paths)),
        copied=data_words.copied(found),
        copy_sentences=copy_sentences(groups, found),
        groups=[(gallery.thumbnails(group[:MOST_PER_GROUP]), len(group)) for group in groups[:MOST_GROUPS]],
        leaks=[_leak(found, leak) for leak in found.leaks],
        refused=data_words.refused(found),
        refused_rows=[(row["path"], row["reason"]) for row in found.refused],
        folded_from=FOLDED_FROM,
    )


def copy_sentences(groups: Sequence[tuple[int, ...]], found: Overview) -> tuple[str, ...]:
    """Return what is shown of the copies that `copies` has found, and what is not."""
    sentences = []
    if groups:
        shown = "" if len(groups) <= MOST_GROUPS else f", of which the first {MOST_GROUPS} are shown"
        verb = "is" if len(groups) == 1 else "are"
        sentences.append(
            f"{count(len(groups), 'picture')} {verb} there more than once among the training and validation "
            f"images{shown}; one that is in two classes comes first: one of its labels must be wrong."
        )
    if found.duplicates_within["test"] or found.leaks:
        sentences.append("Test images and those left out are not shown: pairs across splits are listed by name.")
    return tuple(sentences)


def histograms(sides: NDArray[np.int64]) -> dict[str, list[Bar]]:
    """Return how many of the files with these short and long sides (n, 2) are how large and how long."""
    if not len(sides):
        return {}
    short, ratio = sides[:, 0], sides[:, 1] / sides[:, 0]
    by_size = np.bincount(np.searchsorted(_SIDES_PX, short, side="right") - 1, minlength=len(_SIDES_PX)).tolist()
    names = [f"{low:,} to {high - 1:,} px" for low, high in itertools.pairwise(_SIDES_PX)]
    names.append(f"from {_SIDES_PX[-1]:,} px")
    edges = [upper for upper, _ in _SHAPES]
    by_shape = np.bincount(np.searchsorted(edges, ratio), minlength=len(edges)).tolist()
    return {
        "short side": _bars(names, by_size),
        "long side to short side": _bars([name for _, name in _SHAPES], by_shape),
    }


def size_sentences(sides: NDArray[np.int64], found: Overview, n_files: int) -> tuple[str, ...]:
    """Return what becomes of the files with these short and long sides (n, 2), of `n_files`, when they are resized."""
    if not len(sides):
        return ("None of the files can be read any more, so how their sizes are spread is not known.",)
    used = found.image_shape[1]
    of_all = f"Of {len(sides):,} files, taken evenly from {n_files:,}," if len(sides) < n_files else "Of the files,"
    enlarged = float((sides[:, 0] < used).mean())
    uneven = float((sides[:, 1] / sides[:, 0] > _SHAPES[0][0]).mean())
    what = "lose what lies outside the centre square (`--resize squash` keeps it)"
    if found.resize == "squash":
        what = "change their proportions (`--resize crop` keeps them, and cuts to the centre square)"
    return (
        f"{of_all} {percent(enlarged)} have a short side below the {used} pixels they are used at and are enlarged.",
        f"{percent(uneven)} are not square: these {what}.",
    )


def _bars(names: Sequence[str], counts: Sequence[int]) -> list[Bar]:
    """Return the bars from the first to the last that is not empty."""
    filled = np.flatnonzero(counts)
    return [
        Bar(names[number], counts[number], 100 * counts[number] / max(counts))
        for number in range(filled[0], filled[-1] + 1)
    ]


def _leak(found: Overview, leak: dict[str, Any]) -> tuple[str, ...]:
    """Return what the page lists of a pair of copies on two sides of the split."""
    done = "left out" if found.was_left_out(leak) else "kept"
    kind = "exact" if leak["exact"] else "near"
    return leak["path"], leak["split"], leak["other_path"], leak["other_split"], kind, done


class _Gallery:
    """The training and validation images of a cache, each as a thumbnail when it is asked for."""

    def __init__(self, cache: ImageCache) -> None:
        self.paths = cache.paths()
        self._images, self._labels = cache.arrays()
        self._classes = cache.classes
        self._val = set(cache.indices("val").tolist())

    def thumbnails(self, rows: Sequence[int]) -> list[Thumbnail]:
        """Return the thumbnails of these rows of `cache.arrays()`."""
        return [
            Thumbnail(
                uri=data_uri(self._images[row]),
                path=self.paths[row],
                label=self._classes[int(self._labels[row])],
                split="val" if row in self._val else "train",
                small=self._images.shape[1] <= _SMALL_PX,
            )
            for row in rows
        ]


def _sheets(cache: ImageCache, gallery: _Gallery, rows: Sequence[ClassRow]) -> list[tuple[ClassRow, list[Thumbnail]]]:
    """Return the classes in the order of `rows`, each with some of its training images."""
    per_class = IN_A_LINE * (2 if len(rows) <= MOST_CLASSES_IN_TWO_LINES else 1)
    chosen = dict(zip(cache.classes, examples(cache, per_class), strict=True))
    return [(row, gallery.thumbnails(chosen[row.name])) for row in rows[:MOST_CLASSES]]


def _groups(cache: ImageCache, found: Overview) -> Sequence[tuple[int, ...]]:
    """Return the groups of copies, looked for only where the cache knows of some that are not of the test split."""
    seen = {"train", "val"}
    between = any({leak["split"], leak["other_split"]} <= seen and not found.was_left_out(leak) for leak in found.leaks)
    return copies(cache) if between or any(found.duplicates_within[name] for name in seen) else ()


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image (height, width, 1 or 3) as it stands in the page: a small one as PNG, a larger one as JPEG."""
    side = image.shape[0]
    if side <= _SMALL_PX:
        return png_data_uri(image)
    if side > _THUMBNAIL_PX:
        smaller = cv2.resize(image, (_THUMBNAIL_PX, _THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
        image = np.asarray(smaller, np.uint8).reshape(_THUMBNAIL_PX, _THUMBNAIL_PX, image.shape[2])
    return jpeg_data_uri(image)

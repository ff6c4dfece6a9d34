"""Decode once: every image of DATA as one uint8 array that all trials on a host map into memory.

A cache is a folder `$CONVSCOUT_CACHE/<key>`, written beside and renamed, never changed afterwards:
`images.npy` (N x height x width x channels), `labels.npy`, `split.npy` (0 train, 1 val), `groups.npy` (who stays
together) and `paths.json` of train and val; the same with `test_` for the test split; and `manifest.json`. Search
code has no path to the test files: only `open_test` opens them, and only `analysis/evaluate.py` calls it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation import HaltError, Problems, RequestError, cache_root, count, folder_written_beside, unknown_word
from trainables.build import build
from trainables.decode import POLICIES
from trainables.decoding import default_image_size
from trainables.images import Listing, list_images, open_source
from trainables.opening import LEARNED, TESTED, checked_manifest
from trainables.shared_out import Helpers
from trainables.sources import FolderSource, digest
from trainables.split import SPLITS, folds
from trainables.table import CsvSource

FORMAT_VERSION = 6
DUPLICATES = ("leave_out", "keep")


@dataclass(frozen=True)
class ImageCache:
    """The training and validation images of one data set. Everything but the arrays is in `manifest`."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def data(self) -> str:
        """Return DATA as it was given when the cache was made."""
        return str(self.manifest["data"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names; a label is an index into them."""
        return tuple(self.manifest["classes"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width); channels is 1 where all images are stored as grey, else 3 (RGB)."""
        channels, height, width = self.manifest["image_shape"]
        return channels, height, width

    @property
    def mean(self) -> tuple[float, ...]:
        """Return the mean of each channel over the training split, in 0..255."""
        return tuple(self.manifest["mean"])

    @property
    def deviation(self) -> tuple[float, ...]:
        """Return the standard deviation of each channel over the training split, in 0..255, at least 1."""
        return tuple(self.manifest["deviation"])

    @property
    def fingerprint(self) -> str:
        """Return a digest over all pixels, labels and splits: two equal ones teach the same."""
        return str(self.manifest["fingerprint"])

    @property
    def resize(self) -> str:
        """Return how images were made square: "squash" or "crop"."""
        return str(self.manifest["resize"])

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of images as {split: {class: n}}, test included."""
        return dict(self.manifest["counts"])

    @property
    def refused(self) -> list[dict[str, str]]:
        """Return the files that are not used, as {path, reason}."""
        return list(self.manifest["refused"])

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return images (N, height, width, channels), mapped read-only, and labels (N,); train and val together."""
        return np.load(self.folder / "images.npy", mmap_mode="r"), np.load(self.folder / "labels.npy")

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the rows of `arrays()` that belong to `split`, "train" or "val", ascending."""
        if split not in SPLITS[:2]:
            raise ValueError(unknown_word("split", split, SPLITS[:2]))
        return np.flatnonzero(self._split == SPLITS.index(split))

    def folds(self, number: int) -> list[NDArray[np.int64]]:
        """Return the rows of `arrays()` held out in each fold of a cross-validation over train and val together.

        Every row is held out once, copies and groups together. Raises `RequestError` where a class is too small.
        """
        if not (self.folder / "groups.npy").exists():
            raise RequestError(f"image cache {str(self.folder)!r} has no groups, which --folds needs: remove it")
        groups = np.load(self.folder / "groups.npy")
        return folds(self.arrays()[1], groups, number)

    def paths(self) -> list[str]:
        """Return the path of each row of `arrays()`, relative to DATA."""
        return [str(path) for path in json.loads((self.folder / "paths.json").read_text("utf-8"))]

    @cached_property
    def _split(self) -> NDArray[np.uint8]:
        split: NDArray[np.uint8] = np.load(self.folder / "split.npy")
        return split


def prepare(
    data: str,
    *,
    image_size: int | None = None,
    resize: str = "squash",
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    duplicates: str = "leave_out",
    on_progress: Callable[[int, int], None] | None = None,
    helpers: Helpers | None = None,
) -> ImageCache:
    """Return the cache of `data`, decoding it first where that has not been done with these options.

    `image_size` is in pixels, 28 to 224; by default the median short side, rounded to a multiple of 16, between 32
    and 224. `resize` is "squash" or "crop" (the centre square). The fractions, 0.01 to 0.5, are of the images not yet
    given away, for a split that the data does not give itself: first test, then val. Copies of an image stay on one
    side of a split that is made here; `duplicates` says what becomes of images of a given val or test that train has
    too: "leave_out" or "keep". `on_progress` is called from this thread with the steps done and all. Where decoding
    takes long, `helpers` do a part of it: the cache is bit for bit the same.

    Raises `RequestError` for data that cannot be used or changes meanwhile, options out of range, a cache that cannot
    be written, or a cluster of `helpers` that does not answer; `HaltError` when the disk becomes full.
    """
    _check_options(image_size, resize, val_fraction, test_fraction, duplicates)
    source = open_source(data)
    folder = folder_of(source.key, image_size, resize, val_fraction, test_fraction, duplicates)
    with suppress(RequestError):  # none, or a damaged one: it is decoded again
        return open_cache(folder)
    listing = list_images(data, source)
    total = len(listing.items) * (1 if image_size else 2)

    def report(done: int) -> None:
        if on_progress:
            on_progress(done, total)

    size = image_size or default_image_size(listing, report)
    check_room(folder.parent, len(listing.items) * size * size * 3 * 2)
    with _making(folder, listing) as beside:
        build(
            beside,
            listing,
            size=size,
            resize=resize,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            duplicates=duplicates,
            report=lambda done: report(total - len(listing.items) + done),
            helpers=helpers,
        )
    return open_cache(folder)


def folder_of(key: str, *options: object) -> Path:
    """Return where the cache of a source lies that was made with these options of `prepare`, in their order."""
    return cache_root() / digest(key, [str(option) for option in (FORMAT_VERSION, *options)])[:32]


class _MadeMeanwhile(Exception):
    """Another process has made the same cache: ours is given up, because the other may be open already."""


@contextmanager
def _making(folder: Path, listing: Listing) -> Iterator[Path]:
    """Yield a folder to fill, which becomes `folder` unless another process was quicker or DATA has changed."""
    with (
        _said_when_full(folder.parent),
        suppress(_MadeMeanwhile),
        ExitStack() as turn,  # ends after the folder has been renamed
        folder_written_beside(folder) as beside,
    ):
        yield beside
        _check_unchanged(listing)
        turn.enter_context(_alone(folder.parent))
        with suppress(RequestError):
            open_cache(folder)
            raise _MadeMeanwhile


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Let only one process at a time put a cache into `root`; where the file system knows no locks, all."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _said_when_full(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HaltError(
            f"cache folder {str(root)!r} cannot be written ({error.strerror or error}), and nothing was left there: "
            f"make room, or set CONVSCOUT_CACHE to a folder that has it, and run again"
        ) from error


def _check_unchanged(listing: Listing) -> None:
    """Raise `RequestError` if DATA now is more or other than what was listed, as it is while files are copied there.

    Of a folder or a CSV each file that vanished or changed before it was read has been refused, with the reason; an
    archive is as a whole what it was, or not to be relied on.
    """
    each_is_checked = isinstance(listing.source, FolderSource | CsvSource)
    try:
        source = open_source(listing.data)
        if source.key == listing.key:
            return
        new = set(list_images(listing.data, source).items) - set(listing.items) if each_is_checked else set()
    except (RequestError, OSError):  # it is gone, and was read before
        new = set()
    if each_is_checked and not new:
        return
    what = f"{count(len(new), 'image')} came in or got another label" if new else "the archive was written to"
    raise RequestError(
        f"data {listing.data!r} changed while it was decoded ({what}): wait until nothing writes to it, and run again"
    )


def open_cache(folder: Path) -> ImageCache:
    """Open a cache that `prepare` has made; raises `RequestError` where there is none, or only a part of one."""
    return ImageCache(folder, checked_manifest(folder, (LEARNED, TESTED)))


def open_learned(folder: Path) -> ImageCache:
    """Open a cache for training, with or without the files of its test split; raises `RequestError` as `open_cache`."""
    return ImageCache(folder, checked_manifest(folder, (LEARNED,)))


def open_test(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Return the test split: images (N, height, width, channels), labels (N,) and paths. Only to be called once.

    Search code must never call this: what has been looked at can no longer test (`tests/test_layers.py`).
    """
    images = np.load(folder / "test_images.npy", mmap_mode="r")
    paths = json.loads((folder / "test_paths.json").read_text("utf-8"))
    return images, np.load(folder / "test_labels.npy"), [str(path) for path in paths]


def _check_options(
    image_size: int | None, resize: str, val_fraction: float, test_fraction: float, duplicates: str
) -> None:
    problems = Problems()
    if image_size is not None and not 28 <= image_size <= 224:
        problems.add(f"image size {image_size} is out of range: allowed are 28 to 224 pixels")
    if resize not in POLICIES:
        problems.add(unknown_word("resize", resize, POLICIES))
    if duplicates not in DUPLICATES:
        problems.add(unknown_word("duplicates", duplicates, DUPLICATES))
    for name, fraction in (("val fraction", val_fraction), ("test fraction", test_fraction)):
        if not 0.01 <= fraction <= 0.5:
            problems.add(f"{name} {fraction} is out of range: allowed are 0.01 to 0.5")
    problems.raise_if_any()


def check_room(root: Path, needed_bytes: int) -> None:
    """Raise `RequestError` unless `root` can be written and has room; a full disk kills whoever maps a file."""
    remedy = "set CONVSCOUT_CACHE to a folder that can be written"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"cache folder {str(root)!r} cannot be made ({error.strerror}): {remedy}") from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise RequestError(f"cache folder {str(root)!r} cannot be written: {remedy}")
    free_bytes = shutil.disk_usage(root).free
    if free_bytes < needed_bytes:
        raise RequestError(
            f"cache folder {str(root)!r} has {free_bytes // 2**20} MB free, and the decoded images need "
            f"{needed_bytes // 2**20} MB: {remedy} and has the room, or ask for a smaller image size"
        )

"""Fill a new cache folder: decode on all cores, split, count, measure, and write the manifest.

Images are decoded into a scratch file, because how many are usable, whether all are grey, and so the split
and the shape, are known only at the end; from there they are copied to where they belong. No more than a few
hundred images are in memory at once.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation import Problems, fault, write_json
from trainables import copying
from trainables.decode import BadImage, decode_and_fit, probe_size
from trainables.duplicates import signature, twins
from trainables.images import Item, Listing, Refused, check_classes
from trainables.rows import Rows, write_array
from trainables.split import SPLIT_SEED, SPLITS, make_split

# Images per piece of work of a thread, and rows per copy.
_CHUNK = 64
T = TypeVar("T")


@dataclass(frozen=True)
class _Decoded:
    """What is remembered of one decoded image: its row in the scratch file, and figures of size and value."""

    row: int
    width: int
    height: int
    channels: int
    sha256: bytes
    signature: NDArray[np.float32]
    mean: NDArray[np.float64]
    mean_square: NDArray[np.float64]


def default_image_size(listing: Listing, report: Callable[[int], None]) -> int:
    """Return the median short side of the images, rounded to a multiple of 16, between 32 and 224 pixels."""

    def short_side(row: int) -> int | None:
        try:
            return min(probe_size(listing.source.read(listing.items[row].path)))
        except (BadImage, OSError):
            return None  # decoding gives the reason

    sides = [side for side in _on_all_cores(short_side, len(listing.items), report) if side is not None]
    median = float(np.median(sides)) if sides else 0.0
    return int(min(max(round(median / 16) * 16, 32), 224))


def build(
    folder: Path,
    listing: Listing,
    *,
    size: int,
    resize: str,
    val_fraction: float,
    test_fraction: float,
    duplicates: str,
    report: Callable[[int], None],
) -> None:
    """Write every file of a cache into `folder`, which must exist and be empty.

    Raises `RequestError`, with the first ten refusals, when what can be decoded is not enough to train on, and
    `OSError` when the disk is full.
    """
    with Rows(folder / "scratch", (len(listing.items), size, size, 3)) as scratch:
        decoded, refused = _decode_all(listing, scratch, resize, report)
        items = [listing.items[image.row] for image in decoded]
        refused = [*listing.refused, *refused]
        _check_usable(listing, items, refused)
        digests = [image.sha256 for image in decoded]
        labels = np.array([listing.classes.index(item.label) for item in items], np.int64)
        fitted = scratch.read()
        copies = twins([each.signature for each in decoded], digests, labels, lambda index: fitted[decoded[index].row])
        split = make_split(items, copies, val_fraction=val_fraction, test_fraction=test_fraction)
        found = copying.handle(digests, copies, items, split, listing.classes, duplicates == "leave_out")
        channels = max(image.channels for image in decoded)
        rows = np.array([image.row for image in decoded])
        _write_arrays(folder, fitted, rows, channels, labels, split, [item.path for item in items])
    manifest = {
        "data": listing.data,
        "key": listing.key,
        "classes": list(listing.classes),
        "image_shape": [channels, size, size],
        "resize": resize,
        "split": _split_record(items, val_fraction, test_fraction),
        **_figures(decoded, items, split, listing.classes, channels),
        "duplicates": found,
        "fingerprint": _fingerprint(decoded, labels, split, repr((listing.classes, channels, size))),
        "refused": [{"path": refusal.path, "reason": refusal.reason} for refusal in refused],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
    }
    write_json(folder / "manifest.json", manifest)


def _write_arrays(
    folder: Path,
    fitted: NDArray[np.uint8],
    rows: NDArray[np.int64],
    channels: int,
    labels: NDArray[np.int64],
    split: Sequence[str],
    paths: Sequence[str],
) -> None:
    """Write the images, labels and paths of train and val, those of test apart, and which of the first are val."""
    for prefix, sides in (("", SPLITS[:2]), ("test_", SPLITS[2:])):
        chosen = [index for index, name in enumerate(split) if name in sides]
        _write_images(folder / f"{prefix}images.npy", fitted, rows[chosen], channels)
        write_array(folder / f"{prefix}labels.npy", (len(chosen),), np.int64, [labels[chosen]])
        write_json(folder / f"{prefix}paths.json", [paths[index] for index in chosen])
    numbers = np.array([SPLITS.index(name) for name in split if name in SPLITS[:2]], np.uint8)
    write_array(folder / "split.npy", numbers.shape, np.uint8, [numbers])


def _split_record(items: Sequence[Item], val_fraction: float, test_fraction: float) -> dict[str, Any]:
    return {
        "given": sorted({item.split for item in items if item.split}),
        "by_group": any(item.group for item in items),
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "seed": SPLIT_SEED,
    }


def _figures(
    decoded: Sequence[_Decoded],
    items: Sequence[Item],
    split: Sequence[str],
    classes: Sequence[str],
    channels: int,
) -> dict[str, Any]:
    """Return what the manifest says in numbers about the images that are used."""
    train = [image for image, name in zip(decoded, split, strict=True) if name == "train"]
    mean, deviation = _mean_and_deviation(train, channels)
    found = Counter(zip(split, (item.label for item in items), strict=True))
    return {
        "n_images": sum(bool(name) for name in split),
        "counts": {name: {label: found[name, label] for label in classes} for name in SPLITS},
        "sizes": {
            "width": _least_median_most(image.width for image in decoded),
            "height": _least_median_most(image.height for image in decoded),
        },
        "mean": mean,
        "deviation": deviation,
    }


def _decode_all(
    listing: Listing, scratch: Rows, resize: str, report: Callable[[int], None]
) -> tuple[list[_Decoded], list[Refused]]:
    def decode_row(row: int) -> _Decoded | Refused:
        path = listing.items[row].path
        try:
            fitted, (height, width, channels) = decode_and_fit(listing.source.read(path), scratch.shape[1], resize)
        except BadImage as error:
            return Refused(path, str(error))
        except OSError as error:
            return Refused(path, f"cannot be read ({error.strerror or error})")
        pixels = np.ascontiguousarray(np.broadcast_to(fitted, scratch.shape[1:]))  # grey as three equal channels
        fault("cache.image")
        scratch.write(row, pixels)
        mean, deviation = (np.asarray(figure, np.float64)[:, 0] for figure in cv2.meanStdDev(pixels))
        sha256 = hashlib.sha256(pixels.data).digest()
        sizes = width, height, channels
        return _Decoded(row, *sizes, sha256, signature(fitted), mean, deviation**2 + mean**2)

    results = list(_on_all_cores(decode_row, len(listing.items), report))
    decoded = [result for result in results if isinstance(result, _Decoded)]
    return decoded, [result for result in results if isinstance(result, Refused)]


def _on_all_cores(task: Callable[[int], T], count: int, report: Callable[[int], None]) -> Iterator[T]:
    """Yield `task` of 0..count-1 in order, on as many threads as are worth it.

    OpenCV works without the interpreter's lock, so photographs decode on all cores at once. Tiny images stay on
    one: at 0.2 ms each, two threads took 1.2 times and four 1.5 times as long, handing the lock to and fro.
    """
    started = time.perf_counter()
    for row in range(min(count, _CHUNK)):
        yield task(row)
    seconds_each = (time.perf_counter() - started) / _CHUNK
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def chunk(start: int) -> list[T]:
        return [task(row) for row in range(start, min(start + _CHUNK, count))]

    with ThreadPoolExecutor(cores if seconds_each > 0.0005 else 1) as pool:
        for start, results in enumerate(pool.map(chunk, range(_CHUNK, count, _CHUNK)), start=1):
            report(start * _CHUNK)
            yield from results
    report(count)


def _check_usable(listing: Listing, items: Sequence[Item], refused: Sequence[Refused]) -> None:
    problems = Problems()
    if items:
        check_classes(f"what could be decoded of data {listing.data!r}", items, listing.classes, problems)
    else:
        problems.add(f"data {listing.data!r} holds no image that can be decoded")
    if problems.found:
        for refusal in refused[:10]:
            problems.add(f"refused {refusal.path!r}: {refusal.reason}")
        if len(refused) > 10:
            problems.add(f"and {len(refused) - 10} more files were refused")
    problems.raise_if_any()


def _write_images(path: Path, fitted: NDArray[np.uint8], rows: NDArray[np.int64], channels: int) -> None:
    shape = (len(rows), *fitted.shape[1:3], channels)
    parts = (fitted[rows[start : start + _CHUNK]][..., :channels] for start in range(0, len(rows), _CHUNK))
    write_array(path, shape, np.uint8, parts)


def _mean_and_deviation(images: Sequence[_Decoded], channels: int) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, in 0..255; a deviation of less than 1 counts as 1."""
    mean = np.mean([image.mean for image in images], axis=0)
    mean_square = np.mean([image.mean_square for image in images], axis=0)
    deviation = np.sqrt(np.maximum(mean_square - mean**2, 1.0))
    return mean[:channels].tolist(), deviation[:channels].tolist()


def _fingerprint(
    decoded: Sequence[_Decoded], labels: NDArray[np.int64], split: Sequence[str], classes_and_shape: str
) -> str:
    total = hashlib.sha256(classes_and_shape.encode())
    for image, label, name in zip(decoded, labels, split, strict=True):
        total.update(image.sha256 + f"{label} {name}".encode())
    return total.hexdigest()


def _least_median_most(values: Iterable[int]) -> dict[str, float]:
    numbers = sorted(values)
    return {"min": numbers[0], "median": float(np.median(numbers)), "max": numbers[-1]}

"""Fill a new cache folder: decode on all cores, split, count, measure, and write the manifest.

Images are decoded into a scratch file, because how many are usable, whether all are grey, and so the split
and the shape, are known only at the end; from there they are copied to where they belong. No more than a few
hundred images are in memory at once.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from foundation import Problems, write_json
from trainables import copying
from trainables.decoding import Decoded, decode_all
from trainables.duplicates import twins
from trainables.images import Item, Listing, Refused, check_classes
from trainables.orders import shared
from trainables.rows import Rows, write_array
from trainables.shared_out import Helpers
from trainables.split import SPLIT_SEED, SPLITS, grouped, make_split


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
    helpers: Helpers | None = None,
) -> None:
    """Write every file of a cache into `folder`, which must exist and be empty; `helpers` may decode a part of it.

    Raises `RequestError`, with the first ten refusals, when what can be decoded is not enough to train on, and
    `OSError` when the disk is full.
    """
    with Rows(folder / "scratch", (len(listing.items), size, size, 3)) as scratch:
        decoded, refused = decode_all(listing, scratch, resize, report, shared(listing, size, resize, helpers))
        items = [listing.items[row] for row in decoded.rows.tolist()]
        refused = [*listing.refused, *refused]
        _check_usable(listing, items, refused)
        labels = np.array([listing.classes.index(item.label) for item in items], np.int64)
        digests, rows = decoded.digests, decoded.rows.tolist()
        copies = twins(decoded.signatures, digests, labels, lambda index: scratch.read(rows[index]))
        groups = grouped(items, copies)
        split = make_split(items, groups, val_fraction=val_fraction, test_fraction=test_fraction)
        found = copying.handle(digests, copies, items, split, listing.classes, duplicates == "leave_out")
        channels = int(decoded.shapes[:, 2].max())
        _write_arrays(folder, scratch, rows, channels, labels, split, [item.path for item in items])
        learned = groups[[name in SPLITS[:2] for name in split]]
        write_array(folder / "groups.npy", learned.shape, np.int64, [learned])
    manifest = {
        "data": listing.data,
        "key": listing.key,
        "classes": list(listing.classes),
        "image_shape": [channels, size, size],
        "resize": resize,
        "split": _split_record(items, val_fraction, test_fraction),
        **_figures(decoded, items, split, listing.classes, channels),
        "duplicates": found,
        "fingerprint": _fingerprint(digests, labels, split, repr((listing.classes, channels, size))),
        "refused": [{"path": refusal.path, "reason": refusal.reason} for refusal in refused],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
    }
    write_json(folder / "manifest.json", manifest)


def _write_arrays(
    folder: Path,
    fitted: Rows,
    rows: Sequence[int],
    channels: int,
    labels: NDArray[np.int64],
    split: Sequence[str],
    paths: Sequence[str],
) -> None:
    """Write the images, labels and paths of train and val, those of test apart, and which of the first are val."""
    for prefix, sides in (("", SPLITS[:2]), ("test_", SPLITS[2:])):
        chosen = [index for index, name in enumerate(split) if name in sides]
        shape = (len(chosen), *fitted.shape[1:3], channels)
        parts = (part[..., :channels] for part in fitted.parts([rows[index] for index in chosen]))
        write_array(folder / f"{prefix}images.npy", shape, np.uint8, parts)
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
    decoded: Decoded, items: Sequence[Item], split: Sequence[str], classes: Sequence[str], channels: int
) -> dict[str, Any]:
    """Return what the manifest says in numbers about the images that are used."""
    train = np.array([name == "train" for name in split])
    mean, deviation = _mean_and_deviation(decoded.means[train], decoded.mean_squares[train], channels)
    found = Counter(zip(split, (item.label for item in items), strict=True))
    return {
        "n_images": sum(bool(name) for name in split),
        "counts": {name: {label: found[name, label] for label in classes} for name in SPLITS},
        "sizes": {
            "width": _least_median_most(decoded.shapes[:, 1]),
            "height": _least_median_most(decoded.shapes[:, 0]),
        },
        "mean": mean,
        "deviation": deviation,
    }


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


def _mean_and_deviation(
    means: NDArray[np.float64], mean_squares: NDArray[np.float64], channels: int
) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, in 0..255; a deviation of less than 1 counts as 1."""
    mean = means.mean(axis=0)
    deviation = np.sqrt(np.maximum(mean_squares.mean(axis=0) - mean**2, 1.0))
    return mean[:channels].tolist(), deviation[:channels].tolist()


def _fingerprint(
    digests: Sequence[bytes], labels: NDArray[np.int64], split: Sequence[str], classes_and_shape: str
) -> str:
    total = hashlib.sha256(classes_and_shape.encode())
    for digest, label, name in zip(digests, labels.tolist(), split, strict=True):
        total.update(digest + f"{label} {name}".encode())
    return total.hexdigest()


def _least_median_most(values: NDArray[np.int64]) -> dict[str, float]:
    return {"min": int(values.min()), "median": float(np.median(values)), "max": int(values.max())}

"""What each validation image gave, epoch by epoch: whether it was right, and in retrainings its loss.

A trial keeps one file of each kind, `val_correct.bits` and `val_loss.float32`, of records of equal length: epoch k is
record k - 1, wherever an attempt began. An epoch that is trained again after a crash overwrites its own record, so
nothing is there twice, and nothing has to be merged.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CORRECT, LOSSES = "val_correct.bits", "val_loss.float32"


@dataclass(frozen=True)
class Validated:
    """Of each validation image, in the order of the validation split: whether it was right, and its cross-entropy."""

    correct: NDArray[np.bool_]
    losses: NDArray[np.float32]


def write_validated(folder: Path, epoch: int, validated: Validated, *, losses: bool) -> list[Path]:
    """Write the record of an epoch, counted from 1; with `losses`, those too. Raises OSError where it cannot.

    Returns the files written.
    """
    records = {CORRECT: np.packbits(validated.correct).tobytes()}
    if losses:
        records[LOSSES] = validated.losses.astype("<f4").tobytes()
    for name, record in records.items():
        _write(folder / name, epoch, record)
    return [folder / name for name in records]


def read_correct(folder: Path, epochs: int, n_images: int) -> NDArray[np.bool_] | None:
    """Return which images were right (epochs x n_images), or None where the file lacks some of these epochs."""
    length = (n_images + 7) // 8
    packed = _read(folder / CORRECT, epochs, length)
    if packed is None:
        return None
    return np.unpackbits(packed.reshape(epochs, length), axis=1, count=n_images).astype(bool)


def read_losses(folder: Path, epochs: int, n_images: int) -> NDArray[np.float32] | None:
    """Return the loss of each image (epochs x n_images), or None where the file lacks some of these epochs."""
    found = _read(folder / LOSSES, epochs, 4 * n_images)
    return None if found is None else found.view("<f4").reshape(epochs, n_images).astype(np.float32)


def _write(path: Path, epoch: int, record: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    at = (epoch - 1) * len(record)
    try:
        while record:  # a disk that becomes full takes a part; asked for the rest, it says what is wrong
            written = os.pwrite(descriptor, record, at)
            record, at = record[written:], at + written
    finally:
        os.close(descriptor)


def _read(path: Path, epochs: int, length: int) -> NDArray[np.uint8] | None:
    try:
        content = np.fromfile(path, np.uint8, epochs * length)
    except FileNotFoundError:
        return None
    return content if len(content) == epochs * length else None

"""Arrays that are written to disk a few rows at a time, so that a full disk is an error.

Written through a memory map, an array meets a full disk in the middle of an assignment: the system then ends the
process with SIGBUS, without a word and with its temporary files left behind.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray


class Rows:
    """A scratch file of `shape` (N, ...) uint8; rows are written in any order, by any thread. Deleted on leaving."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._row_bytes = int(np.prod(shape[1:]))
        self._path = path

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(self._descriptor, self.shape[0] * self._row_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._path.unlink()

    def write(self, row: int, values: NDArray[np.uint8]) -> None:
        """Write one row, or several (n, ...) from this one on; raises `OSError` when the disk is full."""
        left = np.ascontiguousarray(values).data.cast("B")
        at = row * self._row_bytes
        while left:  # less is written than was asked for where the disk becomes full
            done = os.pwrite(self._descriptor, left, at)
            left, at = left[done:], at + done

    def read(self) -> NDArray[np.uint8]:
        """Return all rows, mapped read-only."""
        return np.memmap(self._path, np.uint8, "r", shape=self.shape)


def write_array(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], parts: Iterable[NDArray[np.generic]]
) -> None:
    """Write a `.npy` file of `shape` from `parts`, which follow one another along its first axis."""
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)

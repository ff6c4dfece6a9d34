"""Arrays that are written to disk a few rows at a time, so that a full disk is an error.

Written through a memory map, an array meets a full disk in the middle of an assignment: the system then ends the
process with SIGBUS, without a word and with its temporary files left behind.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

_READ_AT_ONCE = 2**20  # bytes; see `Rows.parts`


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

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return one row."""
        return np.asarray(next(self.parts([row]))[0])

    def parts(self, rows: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield these rows in their order, some (n, ...) at a time; the next ones take their place in memory.

        Into the same megabyte again and again: copied 64 at a time out of a mapped file, 60 MB of images took 120 to
        210 ms, nearly all of it the system's for new pages; they take 18.
        """
        held = np.empty((max(1, min(len(rows), _READ_AT_ONCE // self._row_bytes)), *self.shape[1:]), np.uint8)
        for start in range(0, len(rows), len(held)):
            chosen = rows[start : start + len(held)]
            for place, row in enumerate(chosen):
                if os.preadv(self._descriptor, [held[place].data.cast("B")], row * self._row_bytes) < self._row_bytes:
                    raise OSError(f"scratch file {str(self._path)!r} has become shorter")
            yield held[: len(chosen)]


def write_array(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], parts: Iterable[NDArray[np.generic]]
) -> None:
    """Write a `.npy` file of `shape` from `parts`, which follow one another along its first axis."""
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype).data)

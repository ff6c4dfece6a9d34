"""Files of this host for the other hosts of a cluster: given out in pieces, so that neither end holds much of them."""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.asking import served
from cluster.connect import is_own_cluster

PIECE_BYTES = 2**25
IN_FLIGHT = 3  # pieces that a host asks for at a time
KEPT = 8  # pieces that stay in this host's object store: hosts that fetch at the same time get them from one another
PIECE_SECONDS = 300.0  # 32 MB at 1 Mbit/s


@dataclass(frozen=True)
class Parcel:
    """Some files, their sizes in bytes, and the function that gives a piece of one on any host of the cluster."""

    sizes: Mapping[str, int]
    read: Callable[..., Any]

    @property
    def total_bytes(self) -> int:
        """The size of all files."""
        return sum(self.sizes.values())

    def fetch_into(self, folder: Path) -> None:
        """Write all files into a folder, no more than a few pieces at a time in memory.

        Raises `OSError` when the disk is full, or when the pieces do not come: their host is gone, or the network is.
        """
        for name, size in self.sizes.items():
            with open(folder / name, "xb", buffering=0) as file, ThreadPoolExecutor(IN_FLIGHT) as pool:
                write = partial(self._write_piece, file.fileno(), name, size)
                for _ in pool.map(write, range(0, size, PIECE_BYTES)):
                    pass

    def _write_piece(self, descriptor: int, name: str, size: int, start: int) -> None:
        piece = self.read(name, start, min(PIECE_BYTES, size - start))
        left = memoryview(piece)
        while left:  # less is written than was asked for where the disk becomes full
            done = os.pwrite(descriptor, left, start)
            left, start = left[done:], start + done


def parcel(folder: Path, names: Sequence[str]) -> Parcel | None:
    """Return these files of a folder, ready for all hosts as long as this process lives.

    None on a cluster of our own: there is no host but this one.
    """
    if is_own_cluster():
        return None
    sizes = {name: (folder / name).stat().st_size for name in names}
    return Parcel(sizes, served(partial(_read, str(folder)), kept=KEPT, seconds=PIECE_SECONDS))


def _read(folder: str, name: str, start: int, size: int) -> NDArray[np.uint8]:
    piece: NDArray[np.uint8] = np.fromfile(Path(folder) / name, np.uint8, size, offset=start)
    if len(piece) != size:
        raise OSError(errno.EIO, f"{Path(folder) / name} has become shorter while it was read")
    return piece

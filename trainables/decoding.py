"""Decode every image of a listing into a scratch file, on all cores, and note of each what the cache needs to know.

Images are worked on a piece at a time: what can be done for many at once is, and threads meet only between pieces.
"""

import errno
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from foundation import HaltError, fault
from trainables.decode import TOO_LITTLE_MEMORY, BadImage, decode_and_fit, probe_size
from trainables.duplicates import signatures
from trainables.images import Listing, Refused
from trainables.rows import Rows
from trainables.shared_out import Pace, Share, share_out
from trainables.sources import Reader

# A piece is long enough to hide what handing it out costs, and short enough for all cores to finish together.
_PIECE_SECONDS, _MOST_IN_PIECE, _FIRST = 0.01, 64, 8
_WORTH_THREADS = 0.0003  # seconds an image: 0.45 take two threads half as long, 0.2 longer than one
SHARED_SECONDS = 10.0  # what decoding must take here alone for other hosts to be asked
# What is wrong with the host for a moment: a cache is kept for ever, and would lack the image.
_OF_THE_HOST = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
T = TypeVar("T")


@dataclass(frozen=True)
class Decoded:
    """What is remembered of decoded images, in the order of the listing; each array has a row for each.

    `rows` (n,) are their places in the listing and the scratch file, `shapes` (n, 3) height, width and channels as
    stored, `digests` the BLAKE3 of the pixels, `signatures` those of `duplicates`; `means` and `mean_squares` (n, 3)
    are of the values 0..255 of each channel.
    """

    rows: NDArray[np.int64]
    shapes: NDArray[np.int64]
    digests: list[bytes]
    signatures: NDArray[np.float32]
    means: NDArray[np.float64]
    mean_squares: NDArray[np.float64]


def default_image_size(listing: Listing, report: Callable[[int], None]) -> int:
    """Return the median short side of the images, rounded to a multiple of 16, between 32 and 224 pixels."""

    def short_sides(rows: range) -> list[int]:
        sides = []
        for row in rows:
            try:
                sides.append(min(probe_size(listing.source.read(listing.items[row].path))))
            except (BadImage, OSError):
                continue  # decoding gives the reason
        return sides

    found = [side for piece in _on_all_cores(short_sides, len(listing.items), report) for side in piece]
    median = float(np.median(found)) if found else 0.0
    return int(min(max(round(median / 16) * 16, 32), 224))


@dataclass(frozen=True)
class Piece:
    """Images next to one another from row `start` of the listing on: `pixels` (n, size, size, 3), black if refused."""

    start: int
    pixels: NDArray[np.uint8]
    decoded: Decoded
    refused: list[Refused]


def decode_all(
    listing: Listing,
    scratch: Rows,
    resize: str,
    report: Callable[[int], None],
    share: Share[list[Piece]] | None = None,
) -> tuple[Decoded, list[Refused]]:
    """Decode and fit all images into `scratch` (N, size, size, 3), and return what was decoded and what was refused.

    Where that takes long, the other hosts of `share` do a part of it: what comes out is the same.
    """

    def keep(piece: Piece) -> tuple[Decoded, list[Refused]]:
        scratch.write(piece.start, piece.pixels)
        return piece.decoded, piece.refused

    def here(rows: range) -> tuple[Decoded, list[Refused]]:
        paths = [listing.items[row].path for row in rows]
        return keep(decode_piece(listing.source, paths, rows.start, scratch.shape[1], resize))

    def with_others(rows: range, pace: Pace, report: Callable[[int], None]) -> list[tuple[Decoded, list[Refused]]]:
        assert share
        return share_out(rows, pace, report, here, share, lambda pieces: [keep(piece) for piece in pieces])

    pieces = list(_on_all_cores(here, len(listing.items), report, with_others if share else None))
    decoded = [piece for piece, _ in pieces]
    together = Decoded(
        np.concatenate([piece.rows for piece in decoded]),
        np.concatenate([piece.shapes for piece in decoded]),
        [digest for piece in decoded for digest in piece.digests],
        np.concatenate([piece.signatures for piece in decoded]),
        np.concatenate([piece.means for piece in decoded]),
        np.concatenate([piece.mean_squares for piece in decoded]),
    )
    return together, [refusal for _, refused in pieces for refusal in refused]


def decode_piece(source: Reader, paths: Sequence[str], start: int, size: int, resize: str) -> Piece:
    """Return what becomes of these files of `source`, the first of which is row `start` of the listing.

    It depends on nothing else: whichever host does it, the piece is bit for bit the same.
    """
    pixels = np.zeros((len(paths), size, size, 3), np.uint8)
    used, shapes, refused = [], [], []
    for place, path in enumerate(paths):
        try:
            fitted, shape = decode_and_fit(source.read(path), size, resize)
        except BadImage as error:
            if str(error) == TOO_LITTLE_MEMORY:
                raise HaltError(f"{path}: {error}; end what else takes it, and run again") from error
            refused.append(Refused(path, str(error)))
        except OSError as error:
            if error.errno in _OF_THE_HOST:
                why = f"{path} cannot be read now ({error.strerror}): run again, or take it out of the data"
                raise HaltError(f"{why} if it stays so") from error
            refused.append(Refused(path, f"cannot be read ({error.strerror or error})"))
        else:
            fault("cache.image")
            pixels[place] = fitted  # grey as three equal channels
            used.append(place)
            shapes.append(shape)
    places = np.array(used, np.int64)
    kept = pixels[places] if refused else pixels
    figures = [cv2.meanStdDev(image) for image in kept]
    mean, deviation = np.array(figures, np.float64).reshape(-1, 2, 3).transpose(1, 0, 2)
    decoded = Decoded(
        start + places,
        np.array(shapes, np.int64).reshape(-1, 3),
        [blake3(image.data).digest() for image in kept],  # at 224 pixels 41 us, SHA-256 takes 510
        signatures(kept),
        mean,
        deviation**2 + mean**2,
    )
    return Piece(start, pixels, decoded, refused)


def _on_all_cores(
    task: Callable[[range], T],
    count: int,
    report: Callable[[int], None],
    with_others: Callable[[range, Pace, Callable[[int], None]], Iterable[T]] | None = None,
) -> Iterator[T]:
    """Yield what `task` makes of one range after the other of 0..count-1, on as many threads as are worth it.

    OpenCV works without the interpreter's lock, so photographs decode on all cores at once. Tiny images stay on
    one: at 0.2 ms each, two threads took 1.2 times and four 1.5 times as long, handing the lock to and fro. What takes
    longer here than asking other hosts does is done `with_others`, where there are any.
    """
    seconds = [0.0]
    for row in range(min(count, _FIRST)):
        started = time.perf_counter()
        yield task(range(row, row + 1))
        seconds.append(time.perf_counter() - started)
        if len(seconds) > 3 and statistics.median(seconds) > _PIECE_SECONDS:
            break  # they are large, and so are those that other cores could have decoded meanwhile
    seconds_each = statistics.median(seconds)  # not the mean: what is used first, is loaded first
    threaded = seconds_each > _WORTH_THREADS
    step = min(int(_PIECE_SECONDS / max(seconds_each, 1e-6)) + 1, _MOST_IN_PIECE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    left = range(len(seconds) - 1, count)
    if with_others and len(left) * seconds_each / (cores if threaded else 1) > SHARED_SECONDS:
        yield from with_others(left, Pace(step, cores if threaded else 1, threaded), report)
        return
    pieces = [range(start, min(start + step, count)) for start in range(left.start, count, step)]
    with ThreadPoolExecutor(cores) as pool:
        for piece, result in zip(pieces, (pool.map if threaded else map)(task, pieces), strict=True):
            report(piece.start)
            yield result
    report(count)

"""Images that other hosts decode: what they are asked, and whether what they make is what this host would make."""

import platform
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np

from foundation import HaltError
from trainables.decoding import Piece, decode_piece
from trainables.files import CannotHelp, content_digest
from trainables.images import Listing
from trainables.shared_out import Helpers, Host, Pace, Share
from trainables.sources import RemoteReader

PIXEL_BYTES = 2**23  # that a host makes at a time
_PROOF_IMAGES = 16
_TURN = threading.Lock()


@dataclass(frozen=True)
class Order:
    """Files for another host, the first of which is row `start`; each of its threads takes `step` of them at a time."""

    reader: RemoteReader
    paths: Sequence[str]
    start: int
    size: int
    resize: str
    step: int
    threads: int


@dataclass(frozen=True)
class Answer:
    """What a host has made of an order, with which versions, and the digests of files that may be other ones there."""

    pieces: list[Piece]
    unsure: dict[str, bytes]
    versions: str


def decode_order(order: Order) -> Answer:
    """Decode files on the host that this runs on; `CannotHelp` where they, or its memory, are not what they should be.

    One order at a time: each uses all the threads that there may be.
    """

    def work(first: int) -> Piece:
        paths = order.paths[first : first + order.step]
        return decode_piece(order.reader, paths, order.start + first, order.size, order.resize)

    try:
        with _TURN, ThreadPoolExecutor(order.threads) as pool:
            pieces = list(pool.map(work, range(0, len(order.paths), order.step)))
    except HaltError as error:
        raise CannotHelp(str(error.__cause__)) from error
    return Answer(pieces, order.reader.unsure, versions())


def versions() -> str:
    """Return what decodes here, in words."""
    return f"OpenCV {cv2.__version__} and NumPy {np.__version__} on {platform.machine()}"


def shared(listing: Listing, size: int, resize: str, helpers: Helpers | None) -> Share[list[Piece]] | None:
    """Return how other hosts decode a part of a listing to `size` pixels; None where only this one has its files."""
    if helpers is None or listing.source.elsewhere([]) is None:
        return None
    orders = _Orders(listing, size, resize)
    return Share(helpers, max(PIXEL_BYTES // (size * size * 3), 1), orders.prove, orders.ask)


class _Orders:
    """What hosts are asked of a listing."""

    def __init__(self, listing: Listing, size: int, resize: str) -> None:
        self._listing, self._size, self._resize = listing, size, resize

    def ask(self, host: Host, rows: range, pace: Pace) -> list[Piece]:
        """Return what a host makes of some rows; `CannotHelp` where its files differ."""
        paths = [self._listing.items[row].path for row in rows]
        step, threads = (pace.step, host.cores) if pace.threaded else (len(rows), 1)
        return self._answer(host, paths, rows.start, step, threads).pieces

    def prove(self, host: Host) -> None:
        """Raise `CannotHelp` unless a host makes the same, bit for bit, of images from all over the listing.

        Equal versions do not suffice: what is computed in floats may depend on the kind of processor.
        """
        every = -(-len(self._listing.items) // _PROOF_IMAGES)
        paths = [item.path for item in self._listing.items[::every]]
        answer = self._answer(host, paths, 0, len(paths), 1)
        if answer.versions != versions():
            raise CannotHelp(f"it decodes with {answer.versions}, this host with {versions()}")
        here = decode_piece(self._listing.source, paths, 0, self._size, self._resize)
        if not all(map(np.array_equal, _parts(here), _parts(answer.pieces[0]))):
            raise CannotHelp("what it makes of some images is not what this host makes of them")

    def _answer(self, host: Host, paths: Sequence[str], start: int, step: int, threads: int) -> Answer:
        source = self._listing.source
        reader = source.elsewhere(paths)
        assert reader is not None
        answer = host.run(decode_order, Order(reader, paths, start, self._size, self._resize, step, threads))
        for path, digest in answer.unsure.items():
            try:
                same = content_digest(source.read(path)) == digest
            except OSError as error:
                raise CannotHelp(f"{path}: {error.strerror or error}") from error
            if not same:
                raise CannotHelp(f"{path}: it holds other bytes there, as many as here")
        return answer


def _parts(piece: Piece) -> Iterator[Any]:
    """Yield all that is in a piece."""
    yield piece.pixels
    yield [f"{each.path} {each.reason}" for each in piece.refused]
    yield from (getattr(piece.decoded, each.name) for each in fields(piece.decoded))

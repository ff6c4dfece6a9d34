"""How much memory decoding may take: at most so much for one image, and no more for all threads together."""

import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Condition, Lock

from trainables.formats import BadImage, jpeg_frame, probe_size, recognise, tiff_tag

# A PNG of 0.7 MB can hold 16,000 x 16,000 white pixels, which took 1.5 GB to decode; 16 threads would have taken 24 GB.
# This is what 2**28 pixels of 8-bit RGB are reckoned at, so that a photograph of 200 megapixels is still read.
MOST_DECODING_BYTES = 3 * 2**30


# Of 16-bit colour with alpha, the most that anything but a TIFF has, and so what is reckoned for a small image; so
# little is not waited for. Both spare tiny images, which are decoded in 40 microseconds, half as much again.
_USUAL_BYTES = 2 * 8 + 6
_UNCOUNTED_BYTES = 2**24


def decoding_bytes(data: bytes) -> int:
    """Return how many bytes decoding and fitting this file takes at most, from its header.

    Raises `BadImage` for what is no image or a damaged header, and for more than `MOST_DECODING_BYTES`.
    """
    width, height = probe_size(data)
    name = recognise(data).name
    if name != "TIFF" and width * height * _USUAL_BYTES <= _UNCOUNTED_BYTES:
        return width * height * _USUAL_BYTES
    try:
        stored = _pixel_bytes(name, data)
        pixels = max(width * height, _tile_pixels(data) if name == "TIFF" else 0)
    except (struct.error, IndexError) as error:
        raise BadImage(f"damaged {name}: its header cannot be read") from error
    # Twice what is stored, because decoders have buffers of their own (the coefficients of a progressive JPEG, the
    # strip of a TIFF); 3 bytes for the image that is returned, and 3 for the one that is turned upright or cropped.
    needed = pixels * (2 * stored + 6)
    if needed > MOST_DECODING_BYTES:
        raise BadImage(
            f"too large: {width} x {height} pixels of {stored} bytes may take {needed / 1e9:.1f} GB to decode, "
            f"at most {MOST_DECODING_BYTES / 1e9:.1f} GB are used"
        )
    return needed


class Budget:
    """A number of bytes that threads share; who comes first is served first, so that large requests are not starved."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._turn = Lock()
        self._changed = Condition()

    @contextmanager
    def reserved(self, amount: int) -> Iterator[None]:
        """Wait until `amount`, at most the total, is free, and hold it as long as the block runs.

        A thread that waits for more inside of the block could wait for itself for ever: reserve once.
        """
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._used + amount <= self._total)
            self._used += amount
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()


DECODING = Budget(MOST_DECODING_BYTES)


def reserved_for(data: bytes) -> AbstractContextManager[None]:
    """Return a context in which this file may be decoded; raises `BadImage` as `decoding_bytes` does."""
    needed = decoding_bytes(data)
    return DECODING.reserved(needed) if needed > _UNCOUNTED_BYTES else nullcontext()


def _pixel_bytes(name: str, data: bytes) -> int:
    """Return the bytes of one pixel as OpenCV decodes it, at most."""
    if name == "JPEG":
        return max(jpeg_frame(data)[2], 3)
    if name == "PNG":
        # Transparency in a chunk of its own turns every colour type into four channels, and animation does too.
        channels = 4 if b"tRNS" in data or b"acTL" in data else {0: 1, 2: 3, 3: 3}.get(data[25], 4)
        return channels * (2 if data[24] == 16 else 1)
    if name == "TIFF":
        palette = tiff_tag(data, 262) == 3  # decoded to BGR
        return max(tiff_tag(data, 277) or 1, 3 if palette else 1) * max((tiff_tag(data, 258) or 1) // 8, 1)
    return 6 if name == "PNM" else 4  # 16-bit RGB, and 8-bit colour with alpha


def _tile_pixels(data: bytes) -> int:
    """Return the pixels of a TIFF's tile, 0 where it has none; a tile is decoded whole, however small the image."""
    return (tiff_tag(data, 322) or 0) * (tiff_tag(data, 323) or 0)

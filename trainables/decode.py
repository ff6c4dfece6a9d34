"""One image file's bytes -> a uint8 array, and that array -> a square of the size that is trained on.

The same two functions serve the cache and the prediction of new files, so that both see the same pixels.
Only OpenCV decodes. It is asked for the image unchanged: its other modes clip, drop alpha or turn grey to colour.
"""

import struct
from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray

from trainables.formats import (
    BadImage,
    check_whole,
    has_grey_and_alpha,
    jpeg_frame,
    probe_size,
    recognise,
    tiff_tag,
    without_colour_profile,
)
from trainables.memory import reserved_for

__all__ = [
    "AVERAGED_FROM",
    "POLICIES",
    "TOO_LITTLE_MEMORY",
    "BadImage",
    "decode",
    "decode_and_fit",
    "fit",
    "probe_size",
]

POLICIES = ("squash", "crop")

TOO_LITTLE_MEMORY = "too little memory is free to decode it"  # the only reason that is the host's, not the file's

# What is wrong with a file is in the BadImage; OpenCV would say it on standard error as well. (libjpeg inside it
# still writes a line for a JPEG that is damaged in the middle, which can be decoded all the same.)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# A JPEG has neither alpha nor 16 bits: what IMREAD_UNCHANGED gives of it, but as RGB at once, or smaller.
_AS_GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
_AS_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# libjpeg decodes to a half, a quarter or an eighth from the low frequencies alone. Where what is left is at least twice
# as large as asked for, and no pixel lies across an edge, averaging gives the same: in 12 megapixels values differed by
# 0.1 to 0.5 of 255 in the mean. By 2 to 7 where it was less than twice, or sides or what is cropped were no multiples.
_SCALES = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}
_LEFT_TO_AVERAGE = 2
# Where a side is this many times as long as asked for, what shrinks is averaged. Else interpolation is nearer to
# what a Lanczos filter gives: of 120 photographs it differed by 3.08, 2.82 and 2.82 of 255 (root mean square) at 1.05,
# 1.25 and 1.43 times, averaging by 3.14, 3.02 and 2.94; at 1.6 times by 3.16, and 2.91. From 320 x 240 to 224 it takes
# 67 us, not 370.
AVERAGED_FROM = 1.5

_ORIENTATION_TAG = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_COMPRESSION_TAG = 0x0103
_UNREAD_COMPRESSIONS = {34712: "JPEG 2000", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}

# Pixels that are converted at a time: the 16-bit intermediates of a whole image took 24 bytes a pixel with alpha.
_BAND_PIXELS = 2**20


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode one image file: (height, width, 1) when it is stored as grey, else (height, width, 3) in RGB.

    EXIF orientation is applied, 16 bits a channel are scaled (not clipped), floats in 0..1 are scaled, alpha is
    laid over white, and of an animation or several pages the first is taken. Content decides the format, not
    the name. Raises `BadImage` with the reason for what is damaged, cut short, no image, or too large: over 2**28
    pixels, or over 3 GiB of memory to decode. Threads that decode large images at once wait for one another.
    """
    with reserved_for(data):
        return _decode(data)[0]


def decode_and_fit(data: bytes, size: int, policy: str) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """Return what `fit` makes of the decoded file, and the decoded image's (height, width, channels).

    A JPEG whose sides are at least four times `size`, and even, is decoded smaller where that gives the same image: one
    of 12 megapixels to 224 takes 31 ms instead of 94. The decoded image is gone before the next thread's turn comes:
    many threads together stay within the memory that one may use, which they do not where each keeps what `decode`
    returned. Raises `BadImage` like `decode`.
    """
    with reserved_for(data):
        image, (height, width) = _decode(data, (size, policy))
        channels = image.shape[2]
        fitted = fit(image, size, policy)
        del image
        return fitted, (height, width, channels)


def fit(image: NDArray[np.uint8], size: int, policy: str) -> NDArray[np.uint8]:
    """Return `image` (height, width, channels) as (size, size, channels).

    `policy` is "squash" (both sides are scaled, the aspect ratio changes) or "crop" (the centre square is
    scaled). Sides are interpolated (INTER_LINEAR); where one shrinks to two thirds or less, what shrinks is averaged
    before (INTER_AREA).
    """
    height, width, channels = image.shape
    if policy == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = np.ascontiguousarray(image[top : top + side, left : left + side])
        height = width = side
    pixels: cv2.typing.MatLike = image
    if max(width, height) >= AVERAGED_FROM * size:
        # First what shrinks, because INTER_AREA falls back to a plain interpolation as soon as one side grows.
        pixels = cv2.resize(pixels, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    if pixels.shape[:2] != (size, size):
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(pixels, np.uint8).reshape(size, size, channels)


def _decode(data: bytes, wanted: tuple[int, str] | None = None) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return the image and its (height, width); for a size and policy of `fit` it may have been decoded smaller."""
    check_whole(data)
    frame = jpeg_frame(data) if data[:2] == b"\xff\xd8" else None
    is_rgb = frame is not None and frame[2] > 1
    flags = (_AS_RGB if is_rgb else _AS_GREY) if frame else cv2.IMREAD_UNCHANGED
    if frame and wanted:
        flags |= _smaller(frame, *wanted)
    encoded = np.frombuffer(without_colour_profile(data), np.uint8)
    try:
        pixels, kinds, blocks = cv2.imdecodeWithMetadata(encoded, flags)
    except (cv2.error, MemoryError) as error:
        if isinstance(error, MemoryError) or error.code == cv2.Error.STS_NO_MEM:
            raise BadImage(TOO_LITTLE_MEMORY) from error
        raise BadImage(_why_not(data)) from error
    if pixels is None:
        raise BadImage(_why_not(data))
    image = np.asarray(pixels, np.uint8) if is_rgb else _eight_bit(pixels)
    del pixels  # before the copies below: it can be much larger than what was made of it
    if has_grey_and_alpha(data):
        image = image[:, :, :1]
    height, width = frame[:2] if frame else image.shape[:2]
    for kind, block in zip(kinds, blocks, strict=True):
        if kind == cv2.IMAGE_METADATA_EXIF:
            orientation = _orientation(np.asarray(block).tobytes())
            image = _upright(image, orientation)
            height, width = (width, height) if orientation in _TURNED else (height, width)
    return np.ascontiguousarray(image), (height, width)


def _smaller(frame: tuple[int, int, int], size: int, policy: str) -> int:
    """Return the flag for the smallest scale from which `fit` makes the same as from the full size, 0 if only that."""
    sides = frame[:2]
    edges = (*sides, (max(sides) - min(sides)) // 2 if policy == "crop" else 0)
    return next(
        (
            flag
            for scale, flag in _SCALES.items()
            if min(sides) >= scale * _LEFT_TO_AVERAGE * size and not any(edge % scale for edge in edges)
        ),
        0,
    )


def _why_not(data: bytes) -> str:
    """Return why OpenCV did not decode a file whose header and end are there."""
    name = recognise(data).name
    with suppress(struct.error):  # the entry itself is damaged
        compression = tiff_tag(data, _COMPRESSION_TAG) if name == "TIFF" else None
        if compression in _UNREAD_COMPRESSIONS:
            return f"TIFF with {_UNREAD_COMPRESSIONS[compression]} compression: save it with LZW or Deflate"
    return f"damaged {name}: it cannot be decoded"


def _eight_bit(pixels: cv2.typing.MatLike) -> NDArray[np.uint8]:
    """Return decoded pixels as uint8, grey or RGB, converted a band of rows at a time."""
    # Written so that NaN fails it too.
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise BadImage(f"float image with values {pixels.min():g} to {pixels.max():g}: 0 to 1 are read")
    if pixels.dtype == np.uint8 and pixels.ndim == 2:
        return np.asarray(pixels, np.uint8)[:, :, np.newaxis]
    height, width = pixels.shape[:2]
    rows = max(_BAND_PIXELS // width, 1)
    bands = (_rgb_or_grey(_to_uint8(pixels[top : top + rows])) for top in range(0, height, rows))
    first = next(bands)
    if rows >= height:
        return first
    image = np.empty((height, *first.shape[1:]), np.uint8)
    image[:rows] = first
    for number, band in enumerate(bands, start=1):
        image[number * rows : (number + 1) * rows] = band
    return image


def _to_uint8(pixels: cv2.typing.MatLike) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind == "f":
        return np.rint(pixels * 255).astype(np.uint8)
    raise BadImage(f"image of {pixels.dtype} values: 8-bit, 16-bit and float in 0 to 1 are read")


def _rgb_or_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return grey (H, W) as (H, W, 1), BGR as RGB, and BGR with alpha as RGB over white."""
    if pixels.ndim == 2:
        return pixels[:, :, np.newaxis]
    if pixels.shape[2] == 3:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    if pixels.shape[2] != 4:
        raise BadImage(f"image with {pixels.shape[2]} channels: 1, 3 and 4 are read")
    colour = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB).astype(np.uint16)
    alpha = pixels[:, :, 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _orientation(exif: bytes) -> int:
    """Return the orientation 1..8 of an EXIF block; a damaged block means 1, as viewers read it."""
    try:
        return tiff_tag(exif.removeprefix(b"Exif\0\0"), _ORIENTATION_TAG) or 1
    except struct.error:
        return 1


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation: 5 to 8 are transposed, the rest is a mirror along either axis."""
    if orientation in _TURNED:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image

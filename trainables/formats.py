"""What the first bytes of an image file say: its format, its size, and whether its end is there.

Decoders return a picture for half a file, or allocate whatever the header claims. Both are found here, from
the bytes alone, before anything is decoded. Each check follows the format's specification.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from foundation import printable

MOST_PIXELS = 2**28

# Of a progressive JPEG; encoders write about ten. Each goes over the whole picture, so 10,000 empty ones take hours.
MOST_SCANS = 200

# What an image file may be called; what it really is, its content says.
IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".webp", ".tif", ".tiff")
    + (".pbm", ".pgm", ".ppm", ".pnm")
)


class BadImage(Exception):
    """One file cannot be used as an image; the message is the reason, without the path."""


@dataclass(frozen=True)
class Format:
    """An image file format: how to read (width, height) from its header and how to see that it is whole.

    `check_whole` raises `BadImage` when the file ends too early. Both may raise `struct.error` or `IndexError`
    where the header itself is cut short.
    """

    name: str
    size: Callable[[bytes], tuple[int, int]]
    check_whole: Callable[[bytes], None]


def recognise(data: bytes) -> Format:
    """Return the format of a file from its content; raises `BadImage` with what it seems to be instead."""
    if not data:
        raise BadImage("empty file (0 bytes)")
    for signature, image_format in _FORMATS:
        if signature.match(data):
            return image_format
    if data[4:8] == b"ftyp":
        raise BadImage("HEIC, AVIF or video file: convert it to JPEG or PNG")
    if data[:256].isascii() and b"\0" not in data[:256]:
        raise BadImage(f"text, not an image (starts with {data[:16].decode()!r})")
    raise BadImage(f"not a known image format (starts with bytes {data[:8].hex(' ')})")


def probe_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in pixels as stored, before any EXIF rotation, without decoding.

    Raises `BadImage` for what is no image, has a damaged header, or claims more than 2**28 pixels.
    """
    image_format = recognise(data)
    try:
        width, height = image_format.size(data)
    except (struct.error, IndexError, ValueError) as error:
        raise BadImage(f"damaged {image_format.name}: its header cannot be read") from error
    if width < 1 or height < 1:
        raise BadImage(f"damaged {image_format.name}: its header says {width} x {height} pixels")
    if width * height > MOST_PIXELS:
        raise BadImage(f"too large: {width} x {height} pixels, at most {MOST_PIXELS} are read")
    return width, height


def check_whole(data: bytes) -> None:
    """Raise `BadImage` when the file ends before its image does."""
    image_format = recognise(data)
    try:
        image_format.check_whole(data)
    except (struct.error, IndexError) as error:
        raise BadImage(f"truncated {image_format.name}: it ends inside its header") from error


def has_grey_and_alpha(data: bytes) -> bool:
    """Say whether this is a PNG of colour type 4 (grey with alpha), which OpenCV decodes to four channels."""
    return data[:4] == b"\x89PNG" and data[25] == 4


def without_colour_profile(data: bytes) -> bytes:
    """Return a PNG without its iCCP chunk, which OpenCV does not use but libpng may complain about aloud."""
    if data[:4] != b"\x89PNG" or b"iCCP" not in data:
        return data
    kept = (data[start:end] for kind, start, end in _png_chunks(data) if kind != b"iCCP")
    return data[:8] + b"".join(kept)


def tiff_tag(data: bytes, tag: int) -> int | None:
    """Return the first value of a short or long tag in a TIFF's first directory, None where it is absent.

    An EXIF block is laid out as a TIFF file, so this reads both.
    """
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        found, kind, values = struct.unpack_from(order + "HHI", data, entry)
        if found == tag:
            where = entry + 8
            if values * (2 if kind == 3 else 4) > 4:  # too many to stand in the entry itself
                (where,) = struct.unpack_from(order + "I", data, where)
            (value,) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, where)
            return int(value)
    return None


def jpeg_frame(data: bytes) -> tuple[int, int, int]:
    """Return (height, width, channels) as the frame header says."""
    for marker, start in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack_from(">HHB", data, start + 1)
            return height, width, channels
    raise BadImage("damaged JPEG: no frame header")


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start, end) of every chunk up to IEND; the end lies after its checksum."""
    start, kind = 8, b""
    while kind != b"IEND":
        kind, end = data[start + 4 : start + 8], start + 12 + int.from_bytes(data[start : start + 4], "big")
        if start + 12 > len(data) or end > len(data):
            raise BadImage("truncated PNG: no IEND chunk")
        yield kind, start, end
        start = end


def _check_png(data: bytes) -> None:
    for kind, start, end in _png_chunks(data):
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise BadImage(f"damaged PNG: wrong checksum in its {printable(kind.decode('latin-1'))} chunk")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, start of the payload) of each segment up to and including the start of the scan."""
    position, marker = 2, 0
    while marker != 0xDA:
        marker = data[position + 1]
        if data[position] != 0xFF:
            raise BadImage("damaged JPEG: no marker where a segment should begin")
        if marker == 0xFF:
            position += 1  # padding before a marker
            continue
        yield marker, position + 4
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length


def _jpeg_size(data: bytes) -> tuple[int, int]:
    height, width, _ = jpeg_frame(data)
    return width, height


def _check_jpeg(data: bytes) -> None:
    # Segments are walked because an embedded thumbnail has an end marker of its own.
    scan = 0
    for _, start in _jpeg_segments(data):
        scan = start
    if data.rfind(b"\xff\xd9", scan) < 0:  # from behind, where it is found at once
        raise BadImage("truncated JPEG: no end marker")
    if data.count(b"\xff\xda", scan) >= MOST_SCANS:  # or what follows the image, as a film does, looks like it
        scans = 1 + data.count(b"\xff\xda", scan, data.find(b"\xff\xd9", scan))
        if scans > MOST_SCANS:
            raise BadImage(f"JPEG in {scans} scans: at most {MOST_SCANS} are read")


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return width, abs(height)


def _check_bmp(data: bytes) -> None:
    pixels, header = struct.unpack_from("<II", data, 10)
    width, height = _bmp_size(data)
    (bits,) = struct.unpack_from("<H", data, 24 if header == 12 else 28)
    run_length_encoded = header > 12 and struct.unpack_from("<I", data, 30)[0] in (1, 2)
    if not run_length_encoded and pixels + (width * bits + 31) // 32 * 4 * height > len(data):
        raise BadImage("truncated BMP: fewer pixels than its header says")


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _check_gif(data: bytes) -> None:
    def colour_table(flags: int) -> int:
        return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

    position = 13 + colour_table(data[10])
    while position < len(data) and data[position] != 0x3B:
        if data[position] == 0x2C:
            position += 11 + colour_table(data[position + 9])
        else:
            position += 2
        while position < len(data) and data[position]:
            position += data[position] + 1
        position += 1
    if position >= len(data):
        raise BadImage("truncated GIF: no trailer")


def _webp_size(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _check_webp(data: bytes) -> None:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise BadImage("truncated WebP: shorter than its header says")


def _tiff_size(data: bytes) -> tuple[int, int]:
    return tiff_tag(data, 256) or 0, tiff_tag(data, 257) or 0


_PNM = re.compile(rb"P([1-6])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 2 + rb"(?:(?:\s|#[^\n]*\n)+(\d+))?")


def _pnm_size(data: bytes) -> tuple[int, int]:
    header = _PNM.match(data, 0, 2**16)  # the search for a header must not go through 100 MB of spaces
    if header is None:
        raise BadImage("damaged PNM: its header cannot be read")
    if header[1] not in b"14" and header[4] not in (b"255", b"65535"):
        raise BadImage("PNM file whose largest value is neither 255 nor 65535")
    return int(header[2]), int(header[3])


def _left_to_the_decoder(data: bytes) -> None:
    """Accept: OpenCV itself refuses these formats when they are cut short."""


_FORMATS = (
    (re.compile(rb"\xff\xd8\xff"), Format("JPEG", _jpeg_size, _check_jpeg)),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), Format("PNG", _png_size, _check_png)),
    (re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), Format("BMP", _bmp_size, _check_bmp)),
    (re.compile(rb"GIF8[79]a"), Format("GIF", _gif_size, _check_gif)),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), Format("WebP", _webp_size, _check_webp)),
    (re.compile(rb"II\*\0|MM\0\*"), Format("TIFF", _tiff_size, _left_to_the_decoder)),
    (re.compile(rb"P[1-6][\s#]"), Format("PNM", _pnm_size, _left_to_the_decoder)),
)

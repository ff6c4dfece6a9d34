"""Every file that people wrongly call an image, every odd one that is an image all the same, and names nobody expects.

`bad_images` and `odd_images` give bytes by file name; `write_bad_folder` makes one folder with all of it.
"""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Four by six blocks of 16 x 16 pixels: JPEG stores such blocks exactly alike however they are mirrored or turned.
_COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
PICTURE: NDArray[np.uint8] = np.kron(_COLOURS, np.ones((16, 16, 1), np.uint8))

# What undoes each EXIF orientation was done to the picture by a camera that was held so.
_HELD = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[:, ::-1],
}


def with_pillow(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of one kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    """Return the picture as a camera held that way stores it: turned, and with the tag that says so."""
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"subsampling": 0} if kind == "JPEG" else {}
    stored = np.ascontiguousarray(_HELD[orientation](PICTURE))
    return with_pillow(Image.fromarray(stored), kind, exif=exif, **options)


def png(colour_type: int, bits: int, width: int, height: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG made by hand; `rows` are its bytes before compression."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    middle = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(width: int, height: int, pixels: bytes, **tags: int) -> bytes:
    """Return a grey TIFF made by hand, of one Deflate strip, or of one tile where tags give its sides."""
    packed = zlib.compress(pixels)
    values = {256: width, 257: height, 258: tags.get("bits", 8), 259: tags.get("compression", 8), 262: 1, 277: 1}
    start = 8 + 2 + 12 * 10 + 4
    if side := tags.get("tile"):
        values |= {322: side, 323: side, 324: start, 325: len(packed)}
    else:
        values |= {273: start, 278: height, 279: len(packed), 339: tags.get("sample_format", 1)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + packed


def jpeg_with_scans(scans: int) -> bytes:
    """Return a JPEG whose only scan is repeated: each goes over the whole picture."""
    whole = with_pillow(Image.fromarray(PICTURE), "JPEG", progressive=True)
    last, end = whole.rindex(b"\xff\xda"), whole.rindex(b"\xff\xd9")
    return whole[:end] + whole[last:end] * scans + whole[end:]


def bad_images() -> dict[str, tuple[bytes, str]]:
    """Return {file name: (content, the reason for which it is refused)}."""
    image = Image.fromarray(PICTURE)
    huge = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
    half = {
        name: (content[:-9], reason)
        for name, content, reason in [
            ("half.jpg", with_pillow(image, "JPEG"), "truncated JPEG: no end marker"),
            ("half-progressive.jpg", with_pillow(image, "JPEG", progressive=True), "truncated JPEG: no end marker"),
            ("half.png", with_pillow(image, "PNG"), "truncated PNG: no IEND chunk"),
            ("half.gif", with_pillow(image, "GIF"), "truncated GIF: no trailer"),
            ("half.webp", with_pillow(image, "WEBP"), "truncated WebP: shorter than its header says"),
            ("half.tif", with_pillow(image, "TIFF"), "damaged TIFF: it cannot be decoded"),
            ("half.bmp", with_pillow(image, "BMP"), "truncated BMP: fewer pixels than its header says"),
            ("half.ppm", with_pillow(image, "PPM"), "damaged PNM: it cannot be decoded"),
        ]
    }
    flipped = bytearray(with_pillow(image, "PNG"))
    flipped[len(flipped) // 2] ^= 255
    thirty = "too large: 30000 x 30000 pixels, at most 268435456 are read"
    return half | {
        "empty.jpg": (b"", "empty file (0 bytes)"),
        "text.jpg": (b"<html>not found", "text, not an image (starts with '<html>not found')"),
        "markup.jpg": (b"[red]hello[/red]", "text, not an image (starts with '[red]hello[/red]')"),
        "escape.jpg": (b"\x1b[31mred", "text, not an image (starts with '\\x1b[31mred')"),
        "noise.jpg": (bytes(range(128, 160)), "not a known image format (starts with bytes 80 81 82 83 84 85 86 87)"),
        "phone.jpg": (b"\0\0\0\x20ftypheic" + bytes(9), "HEIC, AVIF or video file: convert it to JPEG or PNG"),
        "flipped.png": (bytes(flipped), "damaged PNG: wrong checksum in its IDAT chunk"),
        "huge.png": (png(2, 8, 30000, 30000, b"\0"), thirty),
        "huge.gif": (b"GIF89a" + struct.pack("<HH", 30000, 30000) + bytes(3) + b";", thirty),
        "huge.jpg": (_with_size(with_pillow(image, "JPEG"), 30000), thirty),
        "huge.tif": (tiff(30000, 30000, b"\0"), thirty),
        "huge.pgm": (b"P5 30000 30000 255\n", thirty),
        "huge.bmp": (_huge_bmp(30000), thirty),
        "deep.tif": (
            tiff(16000, 16000, b"\0", bits=64, sample_format=3),
            "too large: 16000 x 16000 pixels of 8 bytes may take 5.6 GB to decode, at most 3.2 GB are used",
        ),
        "tile.tif": (
            tiff(8, 8, b"\0", tile=30000),
            "too large: 8 x 8 pixels of 1 bytes may take 7.2 GB to decode, at most 3.2 GB are used",
        ),
        "scans.jpg": (jpeg_with_scans(3000), "JPEG in 3010 scans: at most 200 are read"),
        "float.tif": (
            cv2.imencode(".tiff", np.full((4, 4), 3, np.float32))[1].tobytes(),
            "float image with values 3 to 3: 0 to 1 are read",
        ),
        "nan.tif": (
            cv2.imencode(".tiff", np.full((4, 4), np.nan, np.float32))[1].tobytes(),
            "float image with values nan to nan: 0 to 1 are read",
        ),
        "whole-numbers.tif": (
            with_pillow(Image.fromarray(PICTURE[:, :, 0].astype(np.int32)), "TIFF"),
            "image of int32 values: 8-bit, 16-bit and float in 0 to 1 are read",
        ),
        "zstandard.tif": (
            tiff(4, 4, b"\0", compression=50000),
            "TIFF with Zstandard compression: save it with LZW or Deflate",
        ),
        "no-pixels.png": (huge[:16] + bytes(8) + huge[24:], "damaged PNG: its header says 0 x 0 pixels"),
    }


def odd_images() -> dict[str, tuple[bytes, int]]:
    """Return {file name: (content, how far a mean value may lie from the picture's)} of files that are used."""
    image = Image.fromarray(PICTURE)
    second = Image.fromarray(255 - PICTURE)
    opaque = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    frames = {"save_all": True, "append_images": [second]}
    floats = (PICTURE[:, :, ::-1] / 255).astype(np.float32)
    return {
        "png-called.jpg": (with_pillow(image, "PNG"), 0),
        "jpeg-called.png": (with_pillow(image, "JPEG", quality=95, subsampling=0), 1),
        "gif-called.bmp": (with_pillow(image.quantize(64), "GIF"), 3),
        "cmyk.jpg": (with_pillow(image.convert("CMYK"), "JPEG", quality=95, subsampling=0), 1),
        "cmyk.tif": (with_pillow(image.convert("CMYK"), "TIFF"), 1),
        "rgba.png": (with_pillow(Image.fromarray(opaque), "PNG"), 0),
        "rgba.webp": (with_pillow(Image.fromarray(opaque), "WEBP", lossless=True), 0),
        "rgba.tif": (with_pillow(Image.fromarray(opaque), "TIFF"), 0),
        "palette.png": (with_pillow(image.quantize(64), "PNG"), 3),
        "palette.bmp": (with_pillow(image.quantize(64), "BMP"), 3),
        "palette.tif": (with_pillow(image.quantize(64), "TIFF"), 3),
        "sixteen-bit.png": (cv2.imencode(".png", PICTURE[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(), 0),
        "sixteen-bit.tif": (cv2.imencode(".tiff", PICTURE[:, :, ::-1].astype(np.uint16) * 257)[1].tobytes(), 0),
        "float.tif": (cv2.imencode(".tiff", floats)[1].tobytes(), 0),
        "double.tif": (cv2.imencode(".tiff", floats.astype(np.float64))[1].tobytes(), 0),
        "animated.gif": (with_pillow(image.quantize(64), "GIF", save_all=True, append_images=[second.quantize(64)]), 3),
        "animated.webp": (with_pillow(image, "WEBP", lossless=True, **frames), 0),
        "animated.png": (with_pillow(image, "PNG", **frames), 0),
        "pages.tif": (with_pillow(image, "TIFF", **frames), 0),
        "big-endian.tif": (with_pillow(image, "TIFF", big_endian=True), 0),
        "progressive.jpg": (with_pillow(image, "JPEG", progressive=True, quality=95, subsampling=0), 1),
        "tail.jpg": (with_pillow(image, "JPEG", quality=95, subsampling=0) + b"\xff\xda" * 999, 1),
    }


def grey_images() -> dict[str, bytes]:
    """Return {file name: content} of a white square at the right of a black one, 8 x 8 each, stored as grey."""
    bits = np.zeros((8, 16), np.uint8)
    bits[:, 8:] = 255
    one_bit = Image.fromarray(bits).convert("1")
    return {
        "one-bit.png": with_pillow(one_bit, "PNG"),
        "one-bit.bmp": with_pillow(one_bit, "BMP"),
        "one-bit.tif": with_pillow(one_bit, "TIFF"),
        "fax.tif": with_pillow(one_bit, "TIFF", compression="group4"),
        "one-bit.pbm": with_pillow(one_bit, "PPM"),
        "grey-alpha.png": with_pillow(Image.fromarray(bits).convert("LA"), "PNG"),
        "grey-sixteen-bit.png": cv2.imencode(".png", bits.astype(np.uint16) * 257)[1].tobytes(),
        "grey-float.tif": cv2.imencode(".tiff", (bits / 255).astype(np.float32))[1].tobytes(),
    }


# File names as bytes, as the system has them, and as they are shown: always valid UTF-8.
DIFFICULT_NAMES = {
    b"two words.png": "two words.png",
    b'it\'s "quoted".png': 'it\'s "quoted".png',
    b"two\nlines.png": "two\nlines.png",
    b"100%s %d {0}.png": "100%s %d {0}.png",
    b"-rf.png": "-rf.png",
    b"--help.png": "--help.png",
    b"[bold red]markup.png": "[bold red]markup.png",
    b"<script>alert(1).png": "<script>alert(1).png",
    b"\x1b[31mred.png": "\x1b[31mred.png",
    b"=1+1.png": "=1+1.png",
    b"caf\xe9.png": r"caf\xe9.png",
    b"\xff\xfe.png": r"\xff\xfe.png",
    "caf\u00e9 \u732b \U0001f408.png".encode(): "caf\u00e9 \u732b \U0001f408.png",
    b"a" * 251 + b".png": "a" * 251 + ".png",
}
DIFFICULT_CLASSES = ("[red]cat", "<b>dog", "\x1b[31memu\x1b[0m", "=SUM(A1)", "fox\nowl", "-x", "100%")


def write_bad_folder(root: Path) -> dict[str, str]:
    """Fill `root` with two classes of usable images and every kind of bad file; return {path: reason} of the latter.

    The class `bad` holds what is refused beside usable files; `odd` holds odd files only, and all are usable.
    """
    refused = {}
    (root / "bad").mkdir(parents=True)
    (root / "odd").mkdir()
    for number in range(4):
        (root / f"bad/usable{number}.png").write_bytes(with_pillow(Image.fromarray(PICTURE), "PNG"))
    for name, (content, reason) in bad_images().items():
        (root / "bad" / name).write_bytes(content)
        refused[f"bad/{name}"] = reason
    for name, (content, _) in odd_images().items():
        (root / "odd" / name).write_bytes(content)
    for name, content in grey_images().items():
        (root / "odd" / name).write_bytes(content)
    for raw, shown in DIFFICULT_NAMES.items():
        Path(root / "odd" / os.fsdecode(raw)).write_bytes(with_pillow(Image.fromarray(PICTURE), "PNG"))
        Path(root / "bad" / os.fsdecode(raw)).touch()
        refused[f"bad/{shown}"] = "empty file (0 bytes)"
    (root / "bad/loop.png").symlink_to(root / "bad/loop.png")
    (root / "bad/up").symlink_to(root)
    (root / "bad/out.png").symlink_to("/etc/hostname")
    os.mkfifo(root / "bad/pipe.png")
    with open(root / "bad/sparse.png", "wb") as file:
        file.truncate(2**40)
    return refused | {
        "bad/loop.png": "symbolic link that leads nowhere",
        "bad/up": "symbolic link to a folder it lies in",
        "bad/out.png": "symbolic link that leaves the folder",
        "bad/pipe.png": "not a regular file",
        "bad/sparse.png": "cannot be read (1,099,511,627,776 bytes: at most 268,435,456 are read)",
    }


def _with_size(jpeg: bytes, side: int) -> bytes:
    frame = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:frame] + struct.pack(">HH", side, side) + jpeg[frame + 4 :]


def _huge_bmp(side: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 1, 0, 0, 0, 0, 0)  # run-length encoded: nothing to miss
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header

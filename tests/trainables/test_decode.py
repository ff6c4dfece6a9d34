"""Every kind of file that people call an image."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trainables.decode import BadImage, decode, decode_and_fit, fit
from trainables.formats import MOST_PIXELS, probe_size

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "photos.zip"
RANDOM = np.random.default_rng(0)
COLOUR = cv2.resize(RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8), (30, 20))


def encoded(pixels, suffix=".png", *options):
    return cv2.imencode(suffix, pixels, list(options))[1].tobytes()


def with_pillow(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(colour_type, bits, width, height, rows, *chunks):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    middle = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
def test_lossless_colour_comes_back_as_rgb(suffix):
    assert np.array_equal(decode(encoded(COLOUR, suffix)), COLOUR[:, :, ::-1])


def test_lossless_webp_comes_back_as_rgb():
    assert np.array_equal(decode(encoded(COLOUR, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)), COLOUR[:, :, ::-1])


@pytest.mark.parametrize("suffix", [".jpg", ".gif", ".webp"])
def test_lossy_colour_is_close(suffix):
    assert np.abs(decode(encoded(COLOUR, suffix)).astype(int) - COLOUR[:, :, ::-1]).mean() < 16


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".pgm", ".jpg"])
def test_grey_keeps_one_channel(suffix):
    grey = np.full((5, 7), 77, np.uint8)
    assert np.array_equal(decode(encoded(grey, suffix)), grey[:, :, np.newaxis])


def test_colour_with_equal_channels_is_still_stored_as_colour():
    assert decode(encoded(np.full((5, 7, 3), 77, np.uint8))).shape == (5, 7, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind, orientation):
    corner = np.zeros((16, 32, 3), np.uint8)
    corner[:8, :8] = 255
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(with_pillow(Image.fromarray(corner), kind, exif=exif, **options))
    assert image.shape == ((16, 32, 3) if orientation < 5 else (32, 16, 3))
    top, left = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    assert image[-top, -left].min() > 200
    assert image[-(1 - top), -(1 - left)].max() < 50


def test_orientation_is_applied_where_there_is_alpha():
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, :, 3] = 255
    pixels[0, 0, :3] = 200
    exif = Image.Exif()
    exif[274] = 6
    image = decode(with_pillow(Image.fromarray(pixels), "PNG", exif=exif))
    assert image.shape == (3, 2, 3)
    assert image[0, 1].tolist() == [200, 200, 200]


def test_damaged_exif_is_ignored():
    jpeg = encoded(COLOUR, ".jpg")
    block = b"Exif\0\0II*\0\xff\xff"
    damaged = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    assert np.array_equal(decode(damaged), decode(jpeg))


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    assert decode(encoded(values))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_alpha_lies_over_white():
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    assert decode(encoded(pixels))[0].tolist() == [[30, 20, 10], [255, 255, 255], [127, 127, 127]]


def test_grey_with_alpha_stays_grey():
    assert decode(png(4, 8, 2, 1, b"\0\x0a\xff\x14\x00"))[0].tolist() == [[10], [255]]


def test_palettes_and_single_bits():
    palette = (b"PLTE", bytes([1, 2, 3, 9, 8, 7]))
    assert decode(png(3, 1, 2, 1, b"\0\x40", palette))[0].tolist() == [[1, 2, 3], [9, 8, 7]]
    assert decode(png(3, 1, 2, 1, b"\0\x40", palette, (b"tRNS", b"\xff\0")))[0].tolist() == [[1, 2, 3], [255] * 3]
    assert decode(png(0, 1, 2, 1, b"\0\x40"))[0].tolist() == [[0], [255]]


def test_cmyk():
    cmyk = Image.new("RGB", (16, 16), (200, 100, 50)).convert("CMYK")
    assert np.abs(decode(with_pillow(cmyk, "JPEG"))[8, 8].astype(int) - (200, 100, 50)).max() < 6


def test_floats():
    halves = np.full((2, 2), 0.5, np.float32)
    assert decode(encoded(halves, ".tiff")).tolist() == [[[128], [128]], [[128], [128]]]
    with pytest.raises(BadImage, match=r"float image with values 0.5 to 3: 0 to 1 are read"):
        decode(encoded(np.array([[0.5, 3]], np.float32), ".tiff"))
    with pytest.raises(BadImage, match="float image with values nan"):
        decode(encoded(np.array([[0.5, np.nan]], np.float32), ".tiff"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_of_several_frames(kind):
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(with_pillow(first, kind, save_all=True, append_images=[second], **options))
    assert image[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        (".jpg", "truncated JPEG: no end marker"),
        (".png", "truncated PNG: no IEND chunk"),
        (".bmp", "truncated BMP: fewer pixels than its header says"),
        (".gif", "truncated GIF: no trailer"),
        (".webp", "truncated WebP: shorter than its header says"),
        (".tiff", "damaged TIFF: it(s header)? cannot be"),
        (".ppm", "damaged PNM: it cannot be decoded"),
    ],
)
def test_half_a_file(suffix, reason, capfd):
    whole = encoded(COLOUR, suffix)
    for length in (len(whole) - 3, len(whole) * 3 // 4):
        with pytest.raises(BadImage, match=reason):
            decode(whole[:length])
    for length in range(min(len(whole), 300)):
        with pytest.raises(BadImage):
            decode(whole[:length])
    assert capfd.readouterr().err == ""


def test_thumbnail_does_not_count_as_the_end():
    jpeg = encoded(COLOUR, ".jpg")
    block = b"Exif\0\0" + encoded(COLOUR[:4, :4], ".jpg")
    with_thumbnail = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    assert decode(with_thumbnail).shape == (20, 30, 3)
    with pytest.raises(BadImage, match="truncated JPEG: no end marker"):
        decode(with_thumbnail[:-2])


def test_progressive_jpeg_is_whole():
    assert decode(with_pillow(Image.fromarray(COLOUR), "JPEG", progressive=True)).shape == (20, 30, 3)


def test_flipped_bits_in_a_png_are_noticed_silently(capfd):
    damaged = bytearray(encoded(COLOUR))
    damaged[len(damaged) // 2] ^= 255
    with pytest.raises(BadImage, match="damaged PNG: wrong checksum in its IDAT chunk"):
        decode(bytes(damaged))
    assert capfd.readouterr().err == ""


def test_faulty_colour_profile_is_no_noise(capfd):
    image = with_pillow(Image.fromarray(COLOUR), "PNG", icc_profile=b"no profile" * 20)
    assert np.array_equal(decode(image), COLOUR)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"empty file \(0 bytes\)"),
        (b"<html>not found", r"text, not an image \(starts with '<html>not found'\)"),
        (b"\0\0\0\x20ftypheic" + bytes(9), "HEIC, AVIF or video file"),
        (bytes(range(128, 160)), "not a known image format .starts with bytes 80 81 82 83 84 85 86 87"),
        (png(2, 8, 0, 5, b""), "damaged PNG: its header says 0 x 5 pixels"),
        (b"P5 2 2 1023\n" + bytes(8), "largest value is neither 255 nor 65535"),
    ],
)
def test_what_is_no_image(data, reason):
    with pytest.raises(BadImage, match=reason):
        decode(data)


def test_a_header_that_claims_too_much_is_refused_before_decoding():
    with pytest.raises(BadImage, match=f"too large: 40000 x 40000 pixels, at most {MOST_PIXELS} are read"):
        decode(png(2, 8, 40000, 40000, b"\0"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".webp", ".tiff", ".ppm"])
def test_probe_reads_the_size_from_the_header(suffix):
    assert probe_size(encoded(COLOUR, suffix)) == (30, 20)


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}, {"save_all": True, "lossless": True}])
def test_probe_reads_each_form_of_webp(options):
    frames = {"append_images": [Image.new("RGB", (30, 20))]} if "save_all" in options else {}
    assert probe_size(with_pillow(Image.fromarray(COLOUR), "WEBP", **options, **frames)) == (30, 20)


def test_squash_averages_when_shrinking():
    image = np.zeros((4, 8, 1), np.uint8)
    image[:, 4:] = 100
    assert fit(image, 2, "squash")[:, :, 0].tolist() == [[0, 100], [0, 100]]


def test_crop_takes_the_centre():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 50
    assert fit(image, 2, "crop").min() == 50
    assert fit(image, 6, "crop").min() == 50


def test_one_side_shrinks_while_the_other_grows():
    stripes = np.zeros((2, 64, 1), np.uint8)
    stripes[:, ::2] = 200
    assert np.unique(fit(stripes, 32, "squash")).tolist() == [100]


@pytest.mark.parametrize(("side", "way"), [(33, cv2.INTER_LINEAR), (47, cv2.INTER_LINEAR), (48, cv2.INTER_AREA)])
def test_a_side_is_averaged_from_one_and_a_half_times_the_size_on(side, way):
    image = RANDOM.integers(0, 256, (side, 40, 3), np.uint8)
    assert np.array_equal(fit(image, 32, "squash"), cv2.resize(image, (32, 32), interpolation=way))


def test_same_size_is_left_alone():
    assert np.array_equal(fit(COLOUR[:, :20], 20, "squash"), COLOUR[:, :20])


def photograph(height, width, channels=3, suffix=".jpg", orientation=1):
    coarse = RANDOM.integers(0, 256, (height // 60, width // 60, channels), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    noisy = np.clip(smooth + RANDOM.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
    if orientation == 1:
        return encoded(noisy, suffix)
    exif = Image.Exif()
    exif[274] = orientation
    return with_pillow(Image.fromarray(noisy), "JPEG", exif=exif, quality=90)


@pytest.fixture
def heights(monkeypatch):
    """The heights of the images that OpenCV gave."""
    seen = []
    original = cv2.imdecodeWithMetadata

    def noted(*arguments):
        given = original(*arguments)
        seen.append(given[0].shape[0])
        return given

    monkeypatch.setattr(cv2, "imdecodeWithMetadata", noted)
    return seen


@pytest.mark.parametrize("policy", ["squash", "crop"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "decoded"), [(960, 1280, 240), (1280, 960, 320), (800, 800, 200)])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(height, width, decoded, channels, policy, heights):
    data = photograph(height, width, channels)
    image, shape = decode_and_fit(data, 96, policy)
    assert heights == [decoded]  # a quarter: an eighth is less than twice 96
    assert shape == (height, width, channels)
    full = fit(decode(data), 96, policy)
    assert image.shape == full.shape
    assert np.abs(image.astype(int) - full).mean() < 0.6
    assert np.abs(image.astype(int) - full).max() <= 5


def test_a_large_jpeg_that_is_stored_on_its_side_is_decoded_smaller_and_upright(heights):
    data = photograph(960, 1280, orientation=6)
    image, shape = decode_and_fit(data, 96, "squash")
    assert heights == [240]
    assert shape == (1280, 960, 3)
    assert np.abs(image.astype(int) - fit(decode(data), 96, "squash")).mean() < 0.6


@pytest.mark.parametrize(
    ("data", "size", "policy"),
    [
        (photograph(380, 640), 96, "squash"),  # too small
        (photograph(961, 1281), 96, "squash"),  # odd
        (photograph(960, 1282), 96, "crop"),  # 161 of its pixels are cropped on each side
        (photograph(960, 1280, suffix=".png"), 96, "squash"),
    ],
)
def test_what_would_not_look_the_same_is_decoded_in_full(data, size, policy, heights):
    image, shape = decode_and_fit(data, size, policy)
    assert heights == [shape[0]]
    assert np.array_equal(image, fit(decode(data), size, policy))


@pytest.mark.parametrize(("times", "side"), [(1.05, 0), (1.25, 0), (1.43, 0), (1.6, 1)])
def test_photographs_shrink_to_what_is_nearer_to_a_lanczos_filter(times, side):
    """Interpolated (0) or averaged (1): the nearer of the two is taken."""
    if not PHOTOS.exists():
        pytest.skip(f"no {PHOTOS} here")
    size = 128
    errors = []
    with zipfile.ZipFile(PHOTOS) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[:: len(archive.namelist()) // 100]
        for image in (decode(archive.read(name)) for name in names):
            if min(image.shape[:2]) < size * times or image.shape[2] != 3:
                continue
            image = np.ascontiguousarray(image[: round(size * times), : round(size * times)])
            exact = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS), float)
            ways = [cv2.resize(image, (size, size), interpolation=way) for way in (cv2.INTER_LINEAR, cv2.INTER_AREA)]
            errors.append([np.sqrt(np.mean((way - exact) ** 2)) for way in ways])
            assert np.array_equal(fit(image, size, "squash"), ways[side])
    assert len(errors) >= 5
    assert np.mean(errors, axis=0).argmin() == side

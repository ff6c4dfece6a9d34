"""Copies are found, and what is only alike is not taken for one."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from trainables.decode import decode_and_fit
from trainables.duplicates import HASH_BITS, _near_hashes, merged, signatures, twins
from trainables.images import list_images

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real images are not on this machine")


def twins_of(images, labels):
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    low = signatures(np.array(images, np.uint8).reshape(-1, *(images[0].shape if images else (32, 32, 3))))
    return twins(low, digests, np.asarray(labels), lambda index: images[index])


def copies_of(images, labels):
    """Return {image: what it is a copy of}."""
    return {index: first for index, first in enumerate(twins_of(images, labels).tolist()) if first != index}


def read(name, size, every):
    """Return every so-manieth image of a data set as RGB, and the labels as numbers."""
    listing = list_images(name if name == "digits" else str(DATA / f"{name}.zip"))
    items = listing.items[::every]
    fitted = [decode_and_fit(listing.source.read(item.path), size, "squash")[0] for item in items]
    images = [image.repeat(3, axis=2) if image.shape[2] == 1 else image for image in fitted]
    return images, [listing.classes.index(item.label) for item in items]


def recompressed(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def rescaled(image, size):
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[:2], interpolation=cv2.INTER_LINEAR)


@needs_data
def test_photographs_saved_again_are_found():
    images, labels = read("photos", 96, 10)
    count = len(images)
    again = [
        *(recompressed(image, 50) for image in images[:40]),
        *(rescaled(image, 64) for image in images[40:80]),
        *(np.clip(image.astype(int) + 15, 0, 255).astype(np.uint8) for image in images[80:120]),
        *(image.copy() for image in images[120:160]),
    ]
    found = copies_of([*images, *again], [*labels, *labels[:160]])
    assert found == {count + index: index for index in range(160)}


@needs_data
def test_photographs_that_are_there_twice():
    listing = list_images(str(DATA / "photos-small.zip"))
    images, labels = read("photos-small", 192, 1)
    found = copies_of(images, labels)
    # Looked at: four photographs, of which other files are other sizes or have a watermark.
    assert len(found) == 4
    assert all(labels[index] == labels[first] for index, first in found.items())
    assert all(listing.items[index].path != listing.items[first].path for index, first in found.items())


@needs_data
def test_handwriting_is_alike_and_not_copied():
    images, labels = read("characters36", 32, 3)
    count = len(images)
    again = [recompressed(image, 75) for image in images[:60]]
    assert copies_of([*images, *again], [*labels, *labels[:60]]) == {count + index: index for index in range(60)}


def test_digits_of_the_same_writers_are_no_copies():
    images, labels = read("digits", 32, 1)
    assert len(images) == 1797
    assert copies_of(images, labels) == {}


def test_shots_of_one_fixed_camera_are_no_copies():
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (64, 64)).astype(int)
    images = [np.clip(scene + rng.normal(0, 4, scene.shape), 0, 255).astype(np.uint8) for _ in range(60)]
    for image in images[30:]:  # a scratch makes the second class
        row, column = rng.integers(5, 50, 2)
        image[row : row + 4, column : column + 4] = 255
    assert copies_of(images, [0] * 30 + [1] * 30) == {}


def test_a_class_of_which_every_image_is_there_four_times():
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8), (64, 64)) for _ in range(30)]
    again = [rescaled(image, size) for size in (56, 48, 40) for image in images]
    assert copies_of([*images, *again], [0] * 120) == {30 + index: index % 30 for index in range(90)}


def test_plain_images_and_shapes_of_another_shade_have_equal_copies_only():
    rng = np.random.default_rng(0)
    dark = [rng.integers(0, 4, (32, 32, 3), dtype=np.uint8) for _ in range(40)]
    assert copies_of([*dark, dark[3].copy()], [0] * 41) == {40: 3}
    textures = [cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (32, 32)) for _ in range(40)]
    paler = [(image // 2 + 64).astype(np.uint8) for image in textures[:5]]
    assert copies_of([*textures, *paler], [0] * 45) == {}


def test_a_copy_of_a_copy_is_a_copy_across_classes_too():
    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 256, (10, 10, 3), dtype=np.uint8), (64, 64)) for _ in range(40)]
    images += [images[7].copy(), rescaled(images[7], 50)]
    assert copies_of(images, [0] * 20 + [1] * 22) == {40: 7, 41: 7}


def test_few_or_no_images():
    assert twins_of([], np.empty(0, np.int64)).tolist() == []
    assert twins_of([np.zeros((32, 32, 3), np.uint8)], [0]).tolist() == [0]


def test_near_hashes_are_those_of_a_comparison_with_all():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 400, dtype=np.uint64)
    hashes[200:] = hashes[:200]
    for index in range(200, 400):  # 0 to 9 bits differ
        for bit in rng.choice(64, index % 10, replace=False):
            hashes[index] ^= np.uint64(1) << np.uint64(bit)
    found = [tuple(pair) for pairs in _near_hashes(hashes) for pair in pairs.tolist()]
    distances = np.bitwise_count(hashes[:, np.newaxis] ^ hashes)
    expected = {(int(one), int(other)) for one, other in np.argwhere(np.triu(distances <= HASH_BITS, 1))}
    assert len(expected) >= 140
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_merged_groups():
    assert merged([[0, 1, 0, 3, 4], [None, "a", "a", None, "b"]]).tolist() == [0, 0, 0, 3, 4]
    assert merged([[], []]).tolist() == []

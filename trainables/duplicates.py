"""Images that are there twice: the same pixels, or the same picture saved again, at another size or quality.

Three steps, each for what the one before lets through. A perceptual hash (C. Zauner, "Implementation and benchmarking
of perceptual image hash functions", 2010): 63 bits, the signs of low frequencies against their median, of which copies
differ in a few. The low frequencies themselves. Then the pixels: the correlation of the gradients of two thumbnails.

How alike is too alike depends on the images: two handwritten 1s, or two shots of one fixed camera, are more alike than
a photograph and its recompressed copy. So the correlation must be far closer to 1 than is usual in the class.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels of a thumbnail
_FREQUENCIES = 8  # along each axis
# The first rows of the matrix of the discrete cosine transform (DCT-II, orthonormal), which is applied along both axes.
_COSINES = np.asarray(cv2.dct(np.eye(SIDE, dtype=np.float32), flags=cv2.DCT_ROWS), np.float32).T[:_FREQUENCIES]
# Of 400 photographs at 96 pixels at least 398 were within 6 bits when recompressed at quality 30, halved, with 20 added
# to every value or with 1.2 times the contrast; 384 with a line of text over them. A difference hash of as many bits
# let 20 times as many pairs of glyphs pass.
HASH_BITS = 6
# How near the correlation must be to 1, as a part of how near it is in the closest 1 % of pairs in the class. Looked at
# as pictures: of 60,000 in cifar10, 42 pairs passed, of 1,188 photographs of monkeys 4, and all showed one picture; of
# 50,400 glyphs, 1,797 digits and 5,200 photographs of sports none. The first glyphs would have passed at 0.10, digits
# at 0.34, unlike photographs at 0.30. Of 200 copies planted among photographs of 96 pixels all were found at quality 30
# or halved, 196 with text on them, 88 with 2 % cut off; among 32-pixel images in colour all at quality 75, 170 at 50.
# Not found are copies that are shifted, mirrored or turned, or small images that were made smaller still.
CLOSER_THAN_USUAL = 1 / 16
# The same for the low frequencies, in which copies agree better still: it spares most of the work on pixels.
_CLOSER_IN_FREQUENCIES, _MOST_DISTANT_IN_FREQUENCIES = 1 / 6, 0.05
_OPPOSITE = 2.0  # the distance of unit vectors, one minus their product, is at most this
_SAMPLE = 200  # images of a class of which all pairs are looked at
_LEAST_SAMPLE = 15
# Re-saving changes brightness and contrast a little; shapes of other shades are other images.
_MOST_BRIGHTER = 32.0
_MOST_CONTRAST = 1.4
_FLAT = 4.0  # standard deviation, of 0..255, below which a hash is noise: a plain image has equal ones only
# A bound on time, where a great many images have a piece of the hash in common: each meets so many others.
_MOST_NEIGHBOURS = 500
_PAIRS_AT_ONCE = 1024


def signatures(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the low frequencies (n, 64) of the brightness of images (n, height, width, 3); the mean counts as 0."""
    count, height, width, _ = images.shape
    if not count:
        return np.empty((0, _FREQUENCIES**2), np.float32)
    grey = np.asarray(cv2.cvtColor(images.reshape(-1, width, 3), cv2.COLOR_RGB2GRAY)).reshape(count, height, width)
    small = np.array([cv2.resize(each, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for each in grey], np.float32)
    low = np.asarray(_COSINES @ small @ _COSINES.T, np.float32).reshape(count, -1)
    low[:, 0] = 0.0
    return low


def twins(
    low: NDArray[np.float32],
    digests: Sequence[bytes],
    labels: NDArray[np.int64],
    picture: Callable[[int], NDArray[np.uint8]],
) -> NDArray[np.int64]:
    """Return for each image the number of the first one that it is a copy of, itself where there is none.

    A copy of a copy is a copy. `low` are the `signatures` (n, 64). `digests` are equal where all pixels are; `picture`
    gives an image (height, width, 3) by its number, for the few that are looked at. 50,400 glyphs took 4.3 s, 60,000 of
    cifar10 2.4 s, 20,000 shots of one scene 8.5 s (one run each, two shared cores).
    """
    first: dict[bytes, int] = {}
    exact = [(first.setdefault(digest, index), index) for index, digest in enumerate(digests)]
    norm = np.sqrt(np.einsum("ij,ij->i", low, low))
    unique = np.array(sorted(first.values()), np.int64)
    rows = unique[norm[unique] / SIDE >= _FLAT]
    near = np.empty((0, 2), np.int64)
    if len(rows) > 1:
        unit = low[rows] / norm[rows, np.newaxis]
        usual = _usual_distances(labels[rows], np.arange(len(rows)), lambda chosen: unit[chosen])
        most = np.minimum(_CLOSER_IN_FREQUENCIES * usual, _MOST_DISTANT_IN_FREQUENCIES)
        alike = [
            pairs[_distances(unit, pairs) <= most[pairs].min(axis=1)] for pairs in _near_hashes(_hashes(low[rows]))
        ]
        if sum(map(len, alike)):
            near = rows[
                _same_pictures(np.concatenate(alike), labels[rows], lambda chosen: _gradients(rows[chosen], picture))
            ]
    return _components(len(digests), np.concatenate([np.array(exact, np.int64).reshape(-1, 2), near]))


def merged(groups: Sequence[Iterable[object]]) -> NDArray[np.int64]:
    """Return one group number for each item, given several groupings: items that any of them joins are one group.

    A grouping names a group for each item, or None for an item that stands alone.
    """
    count, pairs = 0, []
    for grouping in groups:
        begun: dict[object, int] = {}
        for index, name in enumerate(grouping):
            count = max(count, index + 1)
            if name is not None:
                pairs.append((begun.setdefault(name, index), index))
    return _components(count, np.array(pairs, np.int64).reshape(-1, 2))


def _components(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of `count` numbers the least one that pairs (n, 2) lead to from it."""
    from scipy.sparse import coo_array  # not above: workers import this file, and scipy is a twentieth of their start
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    numbers: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    least = np.full(count, count, np.int64)
    np.minimum.at(least, numbers, np.arange(count))
    return np.asarray(least[numbers], np.int64)


def _hashes(low: NDArray[np.float32]) -> NDArray[np.uint64]:
    bits = low[:, 1:] > np.median(low[:, 1:], axis=1, keepdims=True)
    return np.packbits(np.pad(bits, ((0, 0), (1, 0))), axis=1).view(np.uint64).ravel()


def _near_hashes(hashes: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Yield pairs (n, 2) of positions whose hashes differ in at most `HASH_BITS` bits, each pair once.

    Cut into one piece more than bits may differ, near hashes have a piece in common: only those that have are compared.
    """
    edges = np.linspace(0, 64, HASH_BITS + 2).round().astype(np.uint64)
    pieces = list(itertools.pairwise(edges))
    masks = [np.uint64((1 << int(high)) - (1 << int(low))) for low, high in pieces]
    for number, (_, high) in enumerate(pieces):
        # With the piece at the top, and the order of the other bits below it, the likeliest neighbours come first.
        turned = (hashes << (np.uint64(64) - high)) | (hashes >> high) if high < 64 else hashes
        order = np.argsort(turned, kind="stable")
        piece, ordered = (hashes & masks[number])[order], hashes[order]
        left = np.arange(len(hashes))
        for distance in range(1, _MOST_NEIGHBOURS + 1):
            left = left[left + distance < len(hashes)]
            left = left[piece[left] == piece[left + distance]]
            if not len(left):
                break
            differing = ordered[left] ^ ordered[left + distance]
            near = np.bitwise_count(differing) <= HASH_BITS
            if near.any():
                found, differing = left[near], differing[near]
                new = np.ones(len(found), bool)
                for mask in masks[:number]:  # else an earlier piece has led to it
                    new &= (differing & mask) != 0
                yield np.sort(np.stack([order[found], order[found + distance]], axis=1), axis=1)[new]


def _distances(unit: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(1 - np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]]), np.float32)


def _same_pictures(
    pairs: NDArray[np.int64], labels: NDArray[np.int64], gradients: Callable[[NDArray[np.int64]], "_Gradients"]
) -> NDArray[np.int64]:
    """Return those of the pairs (n, 2) whose pixels agree far better than is usual in their classes."""
    likely, distances = [], []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        chunk = pairs[start : start + _PAIRS_AT_ONCE]
        one, other = (gradients(side) for side in chunk.T)
        distance = 1 - np.einsum("ij,ij->i", one.unit, other.unit)
        contrast = np.maximum(one.length, other.length) / np.minimum(one.length, other.length)
        brighter = np.abs(one.mean - other.mean).max(axis=1)
        # Whatever is usual in the class. What is, takes longest to find out: seldom any pair is left to ask it for.
        kept = distance <= CLOSER_THAN_USUAL * _OPPOSITE
        kept &= (contrast <= _MOST_CONTRAST) & (brighter <= _MOST_BRIGHTER)
        likely.append(chunk[kept])
        distances.append(distance[kept])
    left: NDArray[np.int64] = np.concatenate(likely)
    most = CLOSER_THAN_USUAL * _usual_distances(labels, left.ravel(), lambda chosen: gradients(chosen).unit)
    alike: NDArray[np.bool_] = np.concatenate(distances) <= most[left].min(axis=1)
    return left[alike]


def _usual_distances(
    labels: NDArray[np.int64], asked: NDArray[np.int64], vectors: Callable[[NDArray[np.int64]], NDArray[np.float32]]
) -> NDArray[np.float64]:
    """Return for each image (n,) below which distance the closest 1 % of pairs of its class are.

    Only the classes of the images `asked` about, by number, are looked at; for the others it is 0. `vectors` gives unit
    vectors by number. A class of a few images says little: all images stand for it.
    """
    _, of_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    few = -1
    of_class = np.where(counts[of_class] < _LEAST_SAMPLE, few, of_class)
    usual = np.zeros(len(labels))
    for number in np.unique(of_class[asked]):
        members = np.flatnonzero(of_class == number)
        sample = np.arange(len(labels)) if number == few else members
        # Evenly over the paths in order, because copies often follow one another.
        count = min(len(sample), _SAMPLE)
        unit = vectors(sample[np.linspace(0, len(sample) - 1, count).round().astype(np.int64)])
        # Not by NumPy, whose threads wait for one another longer than this takes where other work is on the cores.
        none = np.empty(0, np.float32)
        alike = np.asarray(cv2.gemm(unit, unit, 1, none, 0, flags=cv2.GEMM_2_T), np.float32)
        distances = (1 - alike)[np.triu_indices(count, 1)]
        # Without what may be copies, of which a class can hold more than 1 %.
        distances = distances[distances >= CLOSER_THAN_USUAL * np.median(distances)]
        usual[members] = np.quantile(distances, 0.01)
    return usual


@dataclass(frozen=True)
class _Gradients:
    """Of thumbnails: the gradients as unit vectors (n, m), their lengths (n,), and the mean colours (n, 3)."""

    unit: NDArray[np.float32]
    length: NDArray[np.float32]
    mean: NDArray[np.float32]


def _gradients(numbers: NDArray[np.int64], picture: Callable[[int], NDArray[np.uint8]]) -> _Gradients:
    small = np.stack(
        [cv2.resize(picture(number), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for number in numbers.tolist()]
    ).astype(np.float32)
    gradients = np.stack(
        [np.asarray(cv2.Sobel(image, cv2.CV_32F, *axes), np.float32) for image in small for axes in ((1, 0), (0, 1))]
    ).reshape(len(small), -1)
    length = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
    return _Gradients(gradients / length[:, np.newaxis], length, small.mean(axis=(1, 2)))

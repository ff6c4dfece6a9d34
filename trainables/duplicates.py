"""Images that are there twice: the same pixels, or the same picture saved again, at another size or quality.

Three steps, each for what the one before lets through. A perceptual hash (C. Zauner, "Implementation and benchmarking
of perceptual image hash functions", 2010): 63 bits, the signs of low frequencies against their median, of which copies
differ in a few. The low frequencies themselves. Then the pixels: the correlation of the gradients of two thumbnails.

How alike is too alike depends on the images: two handwritten 1s, or two shots of one fixed camera, are more alike than
a photograph and its recompressed copy. So the correlation must be far closer to 1 than is usual in the class.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE = 32  # pixels of a thumbnail
_FREQUENCIES = 8  # along each axis
# Found again with 6 bits, of 400 photographs at 96 pixels: recompressed with quality 30: 400, halved: 400, with 20 added
# to every pixel or 1.2 times the contrast: 400, with a line of text: 384. A difference hash missed more and let four
# times as many glyphs pass.
HASH_BITS = 6
_LEAST_AGREEMENT = 0.95  # of the low frequencies
# How near the correlation must be to 1, as a part of how near it is in the closest 1 % of pairs in the class. Looked at
# as pictures: of 60,000 in cifar10 51 pairs passed, of 1,188 photographs of monkeys 4, and all showed one picture; of
# 50,400 glyphs, 1,797 digits and 5,200 photographs none. The first pair of glyphs would have passed at 0.10, of digits
# at 0.34, of unlike photographs at 0.30.
CLOSER_THAN_USUAL = 1 / 16
_SAMPLE = 200  # images of a class of which all pairs are looked at
_LEAST_SAMPLE = 15
# Re-saving changes brightness and contrast a little; shapes of other shades are other images.
_MOST_BRIGHTER = 32.0
_MOST_CONTRAST = 1.4
_FLAT = 4.0  # standard deviation, of 0..255, below which a hash is noise: a plain image has equal ones only
# A bound on time, where a great many images have a piece of the hash in common: each meets so many others.
_MOST_NEIGHBOURS = 1000
_PAIRS_AT_ONCE = 1024


def signature(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the low frequencies (64,) of the brightness of an image (height, width, 1 or 3); the mean counts as 0."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[:, :, 0]
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low = np.asarray(cv2.dct(small.astype(np.float32)), np.float32)[:_FREQUENCIES, :_FREQUENCIES].ravel()
    low[0] = 0.0
    return low


def twins(
    signatures: Sequence[NDArray[np.float32]],
    digests: Sequence[bytes],
    labels: NDArray[np.int64],
    picture: Callable[[int], NDArray[np.uint8]],
) -> NDArray[np.int64]:
    """Return for each image the number of the first one that it is a copy of, itself where there is none.

    A copy of a copy is a copy. `digests` are equal where all pixels are; `picture` gives an image (height, width, 3) by
    its number, for the few that are looked at. It took SECONDS.
    """
    first: dict[bytes, int] = {}
    exact = [(first.setdefault(digest, index), index) for index, digest in enumerate(digests)]
    low = np.asarray(signatures, np.float32).reshape(len(digests), -1)
    norm = np.sqrt(np.einsum("ij,ij->i", low, low))
    unique = np.array(sorted(first.values()), np.int64)
    rows = unique[norm[unique] / SIDE >= _FLAT]
    near = np.empty((0, 2), np.int64)
    if len(rows) > 1:
        hashes, unit = _hashes(low[rows]), low[rows] / norm[rows, np.newaxis]
        alike = [
            pairs[np.einsum("ij,ij->i", unit[pairs[:, 0]], unit[pairs[:, 1]]) >= _LEAST_AGREEMENT]
            for pairs in _near_hashes(hashes)
        ]
        found = rows[np.concatenate(alike)] if alike else near
        near = _same_pictures(found, labels, rows, picture) if len(found) else near
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
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), (count, count))
    numbers = connected_components(graph, directed=False)[1]
    least = np.full(count, count, np.int64)
    np.minimum.at(least, numbers, np.arange(count))
    return least[numbers]


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


def _same_pictures(
    pairs: NDArray[np.int64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    picture: Callable[[int], NDArray[np.uint8]],
) -> NDArray[np.int64]:
    """Return those of the pairs (n, 2) whose pixels agree far better than is usual among the images of their classes."""
    usual = _usual_distances(np.unique(labels[pairs]), labels, rows, picture)
    most = CLOSER_THAN_USUAL * np.minimum(*(np.array([usual[label] for label in labels[side]]) for side in pairs.T))
    same = []
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        chunk = pairs[start : start + _PAIRS_AT_ONCE]
        (one, one_norm, one_mean), (other, other_norm, other_mean) = (_gradients(side, picture) for side in chunk.T)
        contrast = np.maximum(one_norm, other_norm) / np.minimum(one_norm, other_norm)
        brighter = np.abs(one_mean - other_mean).max(axis=1)
        distance = 1 - np.einsum("ij,ij->i", one, other)
        close = distance <= most[start : start + len(chunk)]
        same.append(chunk[close & (contrast <= _MOST_CONTRAST) & (brighter <= _MOST_BRIGHTER)])
    return np.concatenate(same)


def _usual_distances(
    wanted: NDArray[np.int64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    picture: Callable[[int], NDArray[np.uint8]],
) -> dict[int, float]:
    """Return for each label below which distance the closest 1 % of pairs of its images are.

    A class of a few images says little: the images of all classes stand for it.
    """
    of_class: dict[int, NDArray[np.int64]] = defaultdict(lambda: rows)
    for label in wanted.tolist():
        members = rows[labels[rows] == label]
        if len(members) >= _LEAST_SAMPLE:
            of_class[label] = members
    usual = {}
    for label in wanted.tolist():
        members = of_class[label]
        # Evenly over the paths in order, because copies often follow one another.
        chosen = members[np.linspace(0, len(members) - 1, min(len(members), _SAMPLE)).round().astype(np.int64)]
        unit = _gradients(chosen, picture)[0]
        usual[label] = float(np.quantile((1 - unit @ unit.T)[np.triu_indices(len(chosen), 1)], 0.01))
    return usual


def _gradients(
    numbers: NDArray[np.int64], picture: Callable[[int], NDArray[np.uint8]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the gradients of thumbnails as unit vectors (n, m), their lengths (n,), and the mean colours (n, 3)."""
    small = np.stack(
        [cv2.resize(picture(number), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for number in numbers.tolist()]
    ).astype(np.float32)
    flat = [
        np.asarray(cv2.Sobel(image, cv2.CV_32F, *axes), np.float32).ravel()
        for image in small
        for axes in ((1, 0), (0, 1))
    ]
    gradients = np.stack(flat).reshape(len(small), -1)
    norm = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
    return gradients / norm[:, np.newaxis], norm, small.mean(axis=(1, 2))

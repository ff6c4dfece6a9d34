"""Images that are there twice: the same pixels, or nearly (another size, another compression, slightly brighter).

Candidates are found by a difference hash (N. Krawetz, "Kind of like that", 2013): 64 bits, of which two near copies
differ in a few. Simple pictures, glyphs above all, have equal hashes without being copies: a candidate counts only if
its thumbnail agrees pixel by pixel as well.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

HASH_BITS = 3  # that may differ: then at least one of the four bands of 16 bits is equal
THUMBNAIL = 16
# The most that two thumbnails of 16 x 16 may differ, in 0..255: on average, and in any pixel. Of 200 photographs 198
# were found again after recompression (quality 30), scaling to 0.6 or brightening by 2 %; of 32-pixel images half
# after recompression. At 4 and 40 two glyphs of other classes counted as copies among 40,320, at 6 and 64 two hundred.
MEAN_DIFFERENCE, LARGEST_DIFFERENCE = 3.0, 32.0
LARGEST_BUCKET = 256  # in a larger one, of plain images mostly, each is compared with the next ones only

Signature = tuple[int, NDArray[np.uint8]]


def signature(image: NDArray[np.uint8]) -> Signature:
    """Return the hash of an image (height x width x channels), and its grey thumbnail."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[:, :, 0]
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return int.from_bytes(bits.tobytes(), "big"), np.asarray(thumbnail, np.uint8).ravel()


def twins(signatures: Sequence[Signature], digests: Sequence[bytes]) -> NDArray[np.int64]:
    """Return for each image the number of the first one that it is a copy of, itself where there is none.

    `digests` are equal where all pixels are. 40,320 images took 2.5 s on one core, hashes and all.
    """
    first = _Groups(len(signatures))
    seen: dict[bytes, int] = {}
    for index, digest in enumerate(digests):
        first.join(seen.setdefault(digest, index), index)
    hashes = np.array([each[0] for each in signatures], np.uint64)
    thumbnails = np.array([each[1] for each in signatures], np.int16).reshape(len(signatures), -1)
    unique = np.array(sorted(set(seen.values())), np.int64)
    for left, right in _candidates(hashes, unique):
        far = np.abs(thumbnails[left] - thumbnails[right])
        same = (far.mean(1) <= MEAN_DIFFERENCE) & (far.max(1) <= LARGEST_DIFFERENCE)
        for one, other in zip(left[same], right[same], strict=True):
            first.join(int(one), int(other))
    return np.array([first.of(index) for index in range(len(signatures))], np.int64)


def merged(groups: Sequence[Iterable[object]]) -> NDArray[np.int64]:
    """Return one group number for each item, given several groupings: items that any of them joins are one group.

    A grouping names a group for each item, or None for an item that stands alone.
    """
    joined = _Groups(len(list(groups[0])))
    for grouping in groups:
        begun: dict[object, int] = {}
        for index, name in enumerate(grouping):
            if name is not None:
                joined.join(begun.setdefault(name, index), index)
    return np.array([joined.of(index) for index in range(len(joined.parent))], np.int64)


def _candidates(
    hashes: NDArray[np.uint64], rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of rows whose hashes differ in at most `HASH_BITS` bits, each in one or more of four pieces."""
    for band in range(4):
        keys = (hashes[rows] >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        buckets: dict[int, list[int]] = defaultdict(list)
        for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
            buckets[key].append(row)
        for bucket in buckets.values():
            if len(bucket) < 2:
                continue
            members = np.array(sorted(bucket, key=lambda row: (int(hashes[row]), row)), np.int64)
            reach = len(members) if len(members) <= LARGEST_BUCKET else LARGEST_BUCKET // 8
            for distance in range(1, min(reach, len(members))):
                left, right = members[:-distance], members[distance:]
                near = np.bitwise_count(hashes[left] ^ hashes[right]) <= HASH_BITS
                if near.any():
                    yield left[near], right[near]


class _Groups:
    """Groups of numbers that grow by joining (union-find); each is known by its least member."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def of(self, index: int) -> int:
        while self.parent[index] != index:
            self.parent[index] = self.parent[self.parent[index]]
            index = self.parent[index]
        return index

    def join(self, one: int, other: int) -> None:
        least, most = sorted((self.of(one), self.of(other)))
        self.parent[most] = least

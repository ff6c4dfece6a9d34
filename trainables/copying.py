"""What becomes of copies of an image: counted, listed, and left out of a given val or test that train has too."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foundation import Problems, count
from trainables.split import SPLITS
from trainables.table import Item


def handle(
    digests: Sequence[bytes],
    copies: NDArray[np.int64],
    items: Sequence[Item],
    split: list[str],
    classes: Sequence[str],
    leave_out: bool,
) -> dict[str, Any]:
    """Return what the manifest says of copies; with `leave_out`, take them out of a `split` that was given.

    Raises `RequestError` if that leaves a class without images in a split.
    """
    found = _report(digests, copies, items, split)
    if leave_out:
        given = {item.split for item in items}
        foreign = [pair for pair in found["pairs"] if pair["split"] in given]
        found["left_out"] = _leave_out(foreign, items, split, classes)
    return found


def _report(
    digests: Sequence[bytes], copies: NDArray[np.int64], items: Sequence[Item], split: Sequence[str]
) -> dict[str, Any]:
    """Return the copies, exact and near: how many within each split, and every pair across splits.

    A pair names the image that is to give way: that of test where it stands in train or val, that of val where it
    stands in train; and that of a val that was given where it stands in a test that was made, because only images of
    given splits can be left out.
    """

    def standing(index: int) -> tuple[bool, int]:
        return items[index].split in ("val", "test"), SPLITS.index(split[index])

    groups: dict[int, list[int]] = defaultdict(list)
    for index, first in enumerate(copies.tolist()):
        groups[first].append(index)
    within: Counter[str] = Counter()
    pairs = []
    for group in groups.values():
        first_of: dict[str, int] = {}
        for index in group:
            within[split[index]] += split[index] in first_of
            first_of.setdefault(split[index], index)
        for index in group:
            twin = min(first_of.values(), key=standing)
            if split[twin] != split[index]:
                exact = digests[index] == digests[twin]
                pairs.append(
                    {
                        "path": items[index].path,
                        "split": split[index],
                        "other_path": items[twin].path,
                        "other_split": split[twin],
                        "exact": exact,
                    }
                )
    return {
        "within": {name: within[name] for name in SPLITS},
        "across_splits": len(pairs),
        "pairs": pairs,
        "left_out": 0,
    }


def _leave_out(pairs: Sequence[dict[str, Any]], items: Sequence[Item], split: list[str], classes: Sequence[str]) -> int:
    """Take the images of `pairs` out of their split and return how many; `RequestError` if that empties a class."""
    paths = {pair["path"] for pair in pairs}
    before = Counter(zip(split, (item.label for item in items), strict=True))
    for index, item in enumerate(items):
        if item.path in paths:
            split[index] = ""
    after = Counter(zip(split, (item.label for item in items), strict=True))
    problems = Problems()
    for name in ("val", "test"):
        for label in classes:
            if before[name, label] and not after[name, label]:
                problems.add(
                    f"class {label!r}: all {count(before[name, label], 'image')} of {name} also stand in train, or in "
                    "another split; give other images there, or keep them with --duplicates keep"
                )
    problems.raise_if_any()
    return len(paths)

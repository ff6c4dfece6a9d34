"""Which images train, which validate, which test: made once, for every search on the data.

Given splits are kept. What is missing is held out of the training images, class by class, so that every class has
at least one image in each split; or by whole groups, where there are groups.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from foundation import RequestError, seed_from
from trainables.duplicates import merged
from trainables.table import Item

SPLITS = ("train", "val", "test")

# Fixed: another seed would be another data set, and what was learned on the two could not be compared.
SPLIT_SEED = 0


def grouped(items: Sequence[Item], copies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for each item, equal where items must stay on one side of a split.

    That are items of one group, and those with equal numbers in `copies`, which show the same picture.
    """
    if not any(item.group for item in items):
        return copies
    return merged([copies.tolist(), [item.group or None for item in items]])


def folds(labels: NDArray[np.int64], groups: NDArray[np.int64], number: int) -> list[NDArray[np.int64]]:
    """Return the rows held out in each of `number` folds: every row once, whole groups, classes in proportion.

    Raises `RequestError` where a class has too few groups to be on both sides of every fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(groups[labels == label])) for label in np.unique(labels))
    if fewest < number:
        raise RequestError(
            f"--folds {number}: the smallest class has {fewest} images or groups to train and validate with, one for "
            f"each fold is needed: ask for {fewest} or fewer, or none"
            if fewest > 1
            else f"--folds {number}: a class has a single image or group to train and validate with"
        )
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=SPLIT_SEED)
    return [np.asarray(held_out, np.int64) for _, held_out in splitter.split(labels, labels, groups)]


def make_split(
    items: Sequence[Item], groups: NDArray[np.int64], *, val_fraction: float, test_fraction: float
) -> list[str]:
    """Return "train", "val" or "test" for each item.

    Items with equal numbers in `groups` (see `grouped`) stay on one side of every split that is made here.

    Test, unless given, is `test_fraction` of the items that are not given to another split; val, unless given, is
    `val_fraction` of what remains. Each class must have an image for each split that is made and one to train
    (`images.check_classes`). Raises `RequestError` when the groups leave a class out of a split.
    """
    split = np.array([item.split or "train" for item in items], dtype=object)
    labels = np.array([item.label for item in items])
    by_group = any(item.group for item in items)
    hold_out: Callable[..., NDArray[np.int64]] = _by_group if by_group else _by_class
    given = {item.split for item in items}
    for name, fraction in (("test", test_fraction), ("val", val_fraction)):
        if name not in given:
            rows = np.flatnonzero(split == "train")
            # A class must keep an image for each split that comes after this one, training included.
            leave = 2 if name == "test" and "val" not in given else 1
            split[rows[hold_out(labels[rows], groups[rows], fraction, leave, name)]] = name
    return [str(name) for name in split]


def _by_class(
    labels: NDArray[np.str_], groups: NDArray[np.int64], fraction: float, leave: int, name: str
) -> NDArray[np.int64]:
    """Return the rows held out: `fraction` of each class, rounded, at least 1, with at least `leave` left.

    A group is held out whole or not at all, but where a class consists of nothing else.

    scikit-learn's stratified splitters promise only the overall number: of a class of 3 they hold out none.
    """
    taken = np.zeros(len(labels), bool)
    members, left = _members(groups), Counter(labels.tolist())
    classes, of_class = np.unique(labels, return_inverse=True)
    for number, label in enumerate(classes):
        rows = np.flatnonzero(of_class == number)
        least = len(rows) - min(max(1, round(fraction * len(rows))), len(rows) - leave)
        order = np.random.default_rng(seed_from(SPLIT_SEED, name, label)).permutation(rows)
        for row in order.tolist():
            if left[label] <= least:
                break
            whole = members.get(int(groups[row]), [row])
            among = Counter(labels[whole].tolist())
            if not taken[row] and all(left[each] - among[each] >= leave for each in among):
                taken[whole] = True
                left.subtract(among)
        if not taken[rows].any():  # all its images are copies of one another
            taken[order[: len(rows) - least]] = True
            left[label] = least
    return np.flatnonzero(taken)


def _members(groups: NDArray[np.int64]) -> dict[int, list[int]]:
    """Return the rows of each group that has more than one."""
    numbers, counts = np.unique(groups, return_counts=True)
    found: dict[int, list[int]] = {int(number): [] for number in numbers[counts > 1]}
    for row in np.flatnonzero(np.isin(groups, numbers[counts > 1])):
        found[int(groups[row])].append(int(row))
    return found


def _by_group(
    labels: NDArray[np.str_], groups: NDArray[np.int64], fraction: float, leave: int, name: str
) -> NDArray[np.int64]:
    """Return the rows of one fold of scikit-learn's StratifiedGroupKFold, the one nearest to `fraction`.

    Folds that hold, or leave, too little of a class are passed over.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    classes, per_class = np.unique(labels, return_counts=True)
    folds = min(round(1 / fraction), int(per_class.min()), len(np.unique(groups)))
    suitable = []
    if folds > 1:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=SPLIT_SEED)
        for kept, held_out in splitter.split(labels, labels, groups):
            kept_groups = [len(np.unique(groups[kept][labels[kept] == label])) for label in classes]
            if min(kept_groups) >= leave and len(np.unique(labels[held_out])) == len(classes):
                suitable.append(np.asarray(held_out, np.int64))
    if not suitable:
        raise RequestError(
            f"no {name} split can be made of the groups: found {len(np.unique(groups))} groups, and no choice of "
            f"whole groups has every class on both sides; give a split column, or more groups of each class"
        )
    return min(suitable, key=lambda rows: abs(len(rows) - fraction * len(labels)))

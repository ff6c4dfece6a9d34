"""Which images train, validate and test."""

from collections import Counter

import numpy as np
import pytest

from foundation import RequestError
from trainables.split import folds, grouped, make_split
from trainables.table import Item


def items(each, **given):
    return [Item(f"{label}/{index}", label, **given) for label, count in each.items() for index in range(count)]


def split_of(listed, copies=None, **fractions):
    copies = range(len(listed)) if copies is None else copies
    return make_split(listed, grouped(listed, np.array(list(copies))), **fractions)


def test_copies_stay_on_one_side_and_the_fractions_hold():
    listed = items({"a": 100, "b": 60})
    copies = np.arange(160)
    for first, others in ((0, (1, 2, 3)), (10, (50, 51)), (20, (120, 121)), (110, (111,))):  # 20 is in both classes
        copies[list(others)] = first
    split = split_of(listed, copies, val_fraction=0.15, test_fraction=0.2)
    for first in (0, 10, 20, 110):
        assert len({split[index] for index in np.flatnonzero(copies == first)}) == 1
    found = Counter(zip((item.label for item in listed), split, strict=True))
    assert 18 <= found["a", "test"] <= 22
    assert 10 <= found["b", "test"] <= 14


def test_a_class_of_nothing_but_copies_is_divided_all_the_same():
    split = split_of(items({"a": 5, "b": 20}), [0] * 5 + list(range(5, 25)), val_fraction=0.2, test_fraction=0.2)
    assert set(split[:5]) == {"train", "val", "test"}


def test_split_is_stratified_and_repeatable():
    listed = items({"a": 100, "b": 3, "c": 4, "d": 1000})
    split = split_of(listed, val_fraction=0.15, test_fraction=0.2)
    found = Counter(zip((item.label for item in listed), split, strict=True))
    assert [found["a", name] for name in ("train", "val", "test")] == [68, 12, 20]
    assert [found["b", name] for name in ("train", "val", "test")] == [1, 1, 1]
    assert [found["c", name] for name in ("train", "val", "test")] == [2, 1, 1]
    assert [found["d", name] for name in ("train", "val", "test")] == [680, 120, 200]
    assert split_of(listed, val_fraction=0.15, test_fraction=0.2) == split


def test_given_splits_are_kept():
    listed = items({"a": 10, "b": 10}, split="train") + items({"a": 3, "b": 5}, split="test")
    split = split_of(listed, val_fraction=0.2, test_fraction=0.2)
    assert split[20:] == ["test"] * 8
    assert Counter(split[:20]) == {"train": 16, "val": 4}
    listed = items({"a": 10, "b": 10}, split="train") + items({"a": 3, "b": 5}, split="val")
    split = split_of(listed, val_fraction=0.2, test_fraction=0.3)
    assert Counter(split) == {"train": 14, "val": 8, "test": 6}


def test_small_classes_keep_one_image_in_each_split_at_any_fraction():
    split = split_of(items({"a": 3, "b": 4}), val_fraction=0.5, test_fraction=0.5)
    assert Counter(split[:3]) == {"train": 1, "val": 1, "test": 1}
    assert Counter(split[3:]) == {"train": 1, "val": 1, "test": 2}


def test_a_group_stays_on_one_side():
    listed = [Item(f"{n}", "ab"[n % 2], group=f"person {n // 10}") for n in range(400)]
    split = split_of(listed, val_fraction=0.15, test_fraction=0.2)
    sides = {(item.group, name) for item, name in zip(listed, split, strict=True)}
    assert len(sides) == 40
    assert Counter(split)["test"] == 80
    assert abs(Counter(split)["val"] - 48) <= 10


def test_groups_that_cannot_be_split():
    listed = [Item(f"{n}", "ab"[n % 2], group="ab"[n % 2]) for n in range(40)]
    with pytest.raises(RequestError, match=r"no test split can be made of the groups: found 2 groups"):
        split_of(listed, val_fraction=0.15, test_fraction=0.2)


def test_folds_hold_every_row_out_once_with_whole_groups_and_classes_in_proportion() -> None:
    labels = np.repeat([0, 1], [40, 20])
    groups = np.arange(60) // 2 * 2  # pairs of copies
    held_out = folds(labels, groups, 5)
    assert sorted(np.concatenate(held_out).tolist()) == list(range(60))
    for rows in held_out:
        assert all((groups[rows] == group).sum() == 2 for group in np.unique(groups[rows]))
        assert (labels[rows] == 0).sum() == 8


def test_a_class_too_small_for_the_folds_is_said() -> None:
    with pytest.raises(RequestError, match=r"--folds 5: the smallest class has 3 images or groups .* 3 or fewer"):
        folds(np.repeat([0, 1], [40, 3]), np.arange(43), 5)
    with pytest.raises(RequestError, match="--folds 2: a class has a single image or group"):
        folds(np.repeat([0, 1], [40, 1]), np.arange(41), 2)

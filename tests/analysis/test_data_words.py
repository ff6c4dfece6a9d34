"""What is said of a data set, sentence by sentence."""

from dataclasses import replace

import pytest

from analysis import data_words
from trainables.overview import ClassRow, Overview

SPLIT = {"given": [], "by_group": False, "val_fraction": 0.15, "test_fraction": 0.2, "seed": 0}


def overview(*rows: tuple[str, int, int, int], **changed: object) -> Overview:
    train = [row[1] for row in rows]
    found = Overview(
        data="photos",
        rows=tuple(ClassRow(*row) for row in rows),
        image_shape=(3, 64, 64),
        resize="squash",
        width={"min": 40, "median": 40.0, "max": 40},
        height={"min": 30, "median": 30.0, "max": 30},
        imbalance=max(train) / min(train),
        duplicates_within={"train": 0, "val": 0, "test": 0},
        n_leaks=0,
        left_out=0,
        leaks=(),
        refused=(),
        split=SPLIT,
    )
    return replace(found, **changed)  # type: ignore[arg-type]


EVEN = (("cat", 100, 20, 30), ("dog", 100, 20, 30))


def test_counts_come_first() -> None:
    sentences = data_words.summary(overview(*EVEN, ("emu", 1000, 20, 30)))
    assert sentences[0] == "1,350 images in 3 classes: 1,200 train, 60 val and 90 test."


def test_sizes_of_the_files_and_as_used() -> None:
    assert data_words.sizes(overview(*EVEN)) == "Files are 40 x 30 pixels; used as 64 x 64, RGB (squash)."
    mixed = {"min": 20, "median": 55.5, "max": 300}
    found = overview(*EVEN, width=mixed, image_shape=(1, 32, 32), resize="crop")
    assert data_words.sizes(found) == (
        "Files are 20 to 300 pixels wide and 30 high (medians 56 and 30); used as 32 x 32, grey (crop)."
    )


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {},
            "Split: test (20 %) and val (15 % of the rest) were held out here, class by class, the same every time.",
        ),
        (
            {"given": ["test", "train"], "by_group": True, "val_fraction": 0.125},
            "Split: train and test are given by the data; val (12.5 % of train) was held out here, in whole groups, "
            "the same every time.",
        ),
        ({"given": ["test", "train", "val"]}, "Split: train, val and test are given by the data."),
    ],
)
def test_where_the_split_comes_from_and_what_it_is_for(record: dict[str, object], said: str) -> None:
    sentence = data_words.split(overview(*EVEN, split=SPLIT | record))
    assert sentence == (
        f"{said} Training images teach, validation images choose between configurations and test images judge the "
        "chosen one, once, at the end."
    )


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (100, "Every class has 100 training images."),
        (150, "The classes are about equally large: from 100 to 150 training images."),
        (
            250,
            "The largest class has 2.5 times as many training images as the smallest, 'emu' (250) and 'cat' (100): "
            "look at the small ones' own figures too.",
        ),
        (
            1000,
            "The largest class has 10 times as many training images as the smallest, 'emu' (1,000) and 'cat' (100): "
            "judge by `--metric val_balanced_accuracy`, in which every class counts alike. The search tries "
            "`class_weights: balanced`, which helps rare classes.",
        ),
    ],
)
def test_balance_and_what_it_means(most: int, said: str) -> None:
    assert data_words.balance(overview(("emu", most, 20, 30), ("cat", 100, 20, 30)))[0] == said


def test_what_is_said_to_do_can_be_asked_for() -> None:
    from typing import get_args

    from search.spec import Metric
    from spaces.training import TRAINING

    assert "val_balanced_accuracy" in get_args(Metric)
    assert "balanced" in TRAINING["class_weights"].domain.options  # type: ignore[union-attr]


def test_what_a_model_must_beat() -> None:
    (_, even) = data_words.balance(overview(*EVEN))
    assert even == "To beat: always answering one and the same class is right for 50.0 % of the validation images."
    (_, uneven) = data_words.balance(overview(("cat", 100, 30, 30), ("dog", 100, 10, 30)))
    assert uneven == "To beat: always answering 'cat' is right for 75.0 % of the validation images."


def test_classes_with_few_images_are_named() -> None:
    *_, few = data_words.balance(overview(("cat", 100, 20, 30), ("dog", 20, 5, 30), ("emu", 19, 5, 2)))
    assert few == (
        "1 class has fewer than 20 training or 5 validation images (the fewest: 'emu', 19 and 5): what is measured of "
        "such classes is rough."
    )
    *_, few = data_words.balance(overview(("cat", 100, 4, 30), ("dog", 3, 1, 1)))
    assert few.startswith("2 classes have fewer than 20 training or 5 validation images (the fewest: 'dog', 3 and 1)")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "No image is a copy of another, exact or near."),
        (
            {"duplicates_within": {"train": 1200, "val": 0, "test": 1}},
            "Copies of other images, exact or near: 1,200 within train, 1 within test.",
        ),
        ({"n_leaks": 3}, "Copies of other images, exact or near: 3 across splits (none left out)."),
        (
            {"n_leaks": 3, "left_out": 2},
            "Copies of other images, exact or near: 3 across splits (2 left out; `--duplicates keep` keeps them).",
        ),
    ],
)
def test_copies(changed: dict[str, object], said: str) -> None:
    assert data_words.copied(overview(*EVEN, **changed)) == said


def test_refused_files() -> None:
    refusal = {"path": "a.png", "reason": "empty file (0 bytes)"}
    assert data_words.refused(overview(*EVEN)) == "No file was refused."
    assert data_words.refused(overview(*EVEN, refused=(refusal,))) == "1 file was refused."
    assert data_words.refused(overview(*EVEN, refused=(refusal,) * 1001)) == "1,001 files were refused."


def test_a_long_name_is_told_by_its_ends() -> None:
    assert data_words.short("a" * 40) == repr("a" * 40)
    name = "begin" + "x" * 100 + "end"
    assert data_words.short(name) == f"'begin{'x' * 15}…{'x' * 16}end'"
    assert len(data_words.short(name)) == 42

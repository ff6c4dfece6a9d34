"""The numbers of a data set, and which of its images are worth a look."""

import shutil

import cv2
import numpy as np
import pytest

from foundation import RequestError
from terminal import show_overview
from trainables.cache import prepare
from trainables.overview import ClassRow, copies, examples, original_sides, overview


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "cache"))

    def write(counts, colour=True):
        random = np.random.default_rng(0)
        for label, count in counts.items():
            (tmp_path / "data" / label).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 200, (30, 40, 3) if colour else (30, 40), dtype=np.uint8)
                (tmp_path / "data" / label / f"{index}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        return tmp_path / "data"

    return write


def test_numbers(data):
    folder = data({"cat": 10, "dog": 20})
    (folder / "cat/empty.png").touch()
    found = overview(prepare(str(folder)))
    assert found.rows == (ClassRow("cat", 7, 1, 2), ClassRow("dog", 14, 2, 4))
    assert [row.total for row in found.rows] == [10, 20]
    assert found.n_images == 30
    assert found.imbalance == 2.0
    assert found.width == {"min": 40, "median": 40.0, "max": 40}
    assert found.height == {"min": 30, "median": 30.0, "max": 30}
    assert found.image_shape == (3, 32, 32)
    assert found.resize == "squash"
    assert (found.duplicates_within, found.n_leaks, found.leaks) == ({"train": 0, "val": 0, "test": 0}, 0, ())
    assert found.refused == ({"path": "cat/empty.png", "reason": "empty file (0 bytes)"},)


def test_leaks(data):
    folder = data({"cat": 10, "dog": 10})
    for index in range(10):
        (folder / f"cat/{index}.png").write_bytes((folder / "cat/0.png").read_bytes())
    found = overview(prepare(str(folder)))
    assert found.duplicates_within == {"train": 6, "val": 0, "test": 1}
    assert (found.n_leaks, found.left_out) == (3, 0)
    assert all(leak["split"] != leak["other_split"] for leak in found.leaks)


def test_copies_are_shown(data, capsys):
    folder = data({"train/cat": 20, "train/dog": 20, "test/cat": 2, "test/dog": 2})
    for index in range(12):
        shutil.copy(folder / f"train/cat/{index}.png", folder / f"test/cat/copy{index:02d}.png")
    shutil.copy(folder / "train/dog/0.png", folder / "train/dog/again.png")
    found = overview(prepare(str(folder)))
    show_overview(found)
    shown = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(shown) if line.startswith("Copies"))
    assert shown[start] == (
        "Copies of other images, exact or near: 1 within train, 12 across splits (12 left out; `--duplicates keep` "
        "keeps them)."
    )
    assert len(shown[start:]) == 13
    assert shown[-2] == "  ... and 2 more; `convscout data DATA --html FILE` or `--json` lists all"
    assert shown[-1] == "No file was refused."
    assert all(line.startswith("  test: test/cat/copy") for line in shown[start + 1 : -2])
    assert (len(found.leaks), found.n_images) == (12, 45)


def test_examples_are_training_images_evenly_over_each_class(data):
    prepared = prepare(str(data({"cat": 4, "dog": 20})))
    labels = prepared.arrays()[1]
    train = prepared.indices("train").tolist()
    cats, dogs = examples(prepared, per_class=3)
    # Two of the four cats train, so there is no third.
    assert (len(cats), len(dogs)) == (2, 3)
    assert {*cats, *dogs} <= set(train)
    assert (set(labels[list(cats)]), set(labels[list(dogs)])) == ({0}, {1})
    of_dogs = [row for row in train if labels[row] == 1]
    assert dogs == (of_dogs[0], of_dogs[round((len(of_dogs) - 1) / 2)], of_dogs[-1])


@pytest.mark.parametrize("colour", [True, False])
def test_copies_are_found_again_two_classes_first_and_never_of_test(data, colour):
    folder = data({"train/cat": 20, "train/dog": 20, "val/cat": 3, "val/dog": 3, "test/cat": 3, "test/dog": 3}, colour)
    for index in range(3):
        shutil.copy(folder / "train/dog/0.png", folder / f"train/dog/again{index}.png")
    shutil.copy(folder / "train/dog/7.png", folder / "train/cat/wrong.png")
    shutil.copy(folder / "test/dog/1.png", folder / "test/dog/again.png")
    prepared = prepare(str(folder))
    assert overview(prepared).duplicates_within == {"train": 4, "val": 0, "test": 1}
    paths = prepared.paths()
    assert [[paths[row] for row in group] for group in copies(prepared)] == [
        ["train/cat/wrong.png", "train/dog/7.png"],
        ["train/dog/0.png", *(f"train/dog/again{index}.png" for index in range(3))],
    ]


def test_only_images_of_a_given_split_are_left_out(data):
    folder = data({"train/cat": 20, "train/dog": 20, "val/cat": 3, "val/dog": 3})
    shutil.copy(folder / "train/cat/0.png", folder / "val/cat/copy.png")
    found = overview(prepare(str(folder)))
    assert [found.was_left_out(leak) for leak in found.leaks] == [True]
    assert found.was_left_out(found.leaks[0] | {"split": "test"}) is False
    kept = overview(prepare(str(folder), duplicates="keep"))
    assert [kept.was_left_out(leak) for leak in kept.leaks] == [False]


def test_sides_are_those_of_the_files_and_a_lost_file_is_passed_over(data, monkeypatch):
    folder = data({"cat": 10, "dog": 20})
    prepared = prepare(str(folder))
    assert original_sides(prepared, str(folder)).tolist() == [[30, 40]] * 24
    assert original_sides(prepared, str(folder), most=5).tolist() == [[30, 40]] * 5
    (folder / prepared.paths()[0]).unlink()
    (folder / prepared.paths()[1]).write_bytes(b"x")
    assert len(original_sides(prepared, str(folder))) == 22
    shutil.rmtree(folder)
    with pytest.raises(RequestError, match="does not exist"):
        original_sides(prepared, str(folder))

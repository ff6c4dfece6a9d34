"""The numbers of a data set and its contact sheet."""

import shutil

import cv2
import numpy as np
import pytest

from terminal import show_overview
from trainables.cache import prepare
from trainables.overview import ClassRow, contact_sheet, overview


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
    assert len(shown[start:]) == 12
    assert shown[-1] == "  ... and 2 more; `convscout data DATA --json` lists all"
    assert all(line.startswith("  test: test/cat/copy") for line in shown[start + 1 : -1])
    assert (len(found.leaks), found.n_images) == (12, 45)


@pytest.mark.parametrize("colour", [True, False])
def test_contact_sheet_shows_training_images(data, tmp_path, colour):
    prepared = prepare(str(data({"cat": 4, "d\u00f6g": 20}, colour)))
    contact_sheet(prepared, tmp_path / "sheet.png", per_class=3)
    sheet = cv2.imread(str(tmp_path / "sheet.png"), cv2.IMREAD_COLOR_RGB)
    assert sheet.shape == (2 * 52, 180 + 3 * 52, 3)
    images, labels = prepared.arrays()
    train = prepared.indices("train")
    first = images[train[labels[train] == 1][0]]
    expected = cv2.resize(first, (48, 48), interpolation=cv2.INTER_NEAREST).reshape(48, 48, -1)
    assert np.array_equal(sheet[52:100, 180:228], np.broadcast_to(expected, (48, 48, 3)))
    # Two of the four cats train, so the third place is empty; the name is written on the left.
    assert sheet[:52, 180 + 2 * 52 :].min() == 255
    assert sheet[:52, :180].min() < 100


def test_contact_sheet_is_bounded(data, tmp_path):
    prepared = prepare(str(data({f"class {index:02d}": 3 for index in range(42)})))
    contact_sheet(prepared, tmp_path / "sheet.png", per_class=1)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (41 * 52, 180 + 52, 3)

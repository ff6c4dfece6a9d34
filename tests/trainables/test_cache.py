"""Decoded once, split once, found again at once; the test split apart."""

import json
import os
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from foundation import RequestError
from trainables import cache, decoding
from trainables.cache import open_cache, open_test, prepare

DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "cache"))


def write_images(root, *, classes=("cat", "dog"), each=10, shape=(40, 30), colour=True, seed=0):
    """Write random PNG files CLASS/i.png and return their folder as DATA."""
    random = np.random.default_rng(seed)
    for label in classes:
        (root / label).mkdir(parents=True)
        for index in range(each):
            pixels = random.integers(0, 256, (*shape, 3) if colour else shape, dtype=np.uint8)
            (root / label / f"{index}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return str(root)


def test_what_a_cache_holds(tmp_path):
    prepared = prepare(write_images(tmp_path / "data"), image_size=28)
    images, labels = prepared.arrays()
    assert prepared.classes == ("cat", "dog")
    assert prepared.image_shape == (3, 28, 28)
    assert images.shape == (16, 28, 28, 3)
    assert images.dtype == np.uint8
    assert not images.flags.writeable
    assert prepared.counts == {
        "train": {"cat": 7, "dog": 7},
        "val": {"cat": 1, "dog": 1},
        "test": {"cat": 2, "dog": 2},
    }
    train, val = prepared.indices("train"), prepared.indices("val")
    assert sorted([*train, *val]) == list(range(16))
    assert np.bincount(labels[train]).tolist() == [7, 7]
    assert prepared.mean == pytest.approx(images[train].mean((0, 1, 2)))
    assert prepared.deviation == pytest.approx(images[train].std((0, 1, 2)))
    for path, label in zip(prepared.paths(), labels, strict=True):
        assert path.split("/")[0] == prepared.classes[label]


def test_the_test_split_lies_apart(tmp_path):
    prepared = prepare(write_images(tmp_path / "data"), image_size=28)
    images, labels, paths = open_test(prepared.folder)
    assert images.shape == (4, 28, 28, 3)
    assert labels.tolist() == [0, 0, 1, 1]
    assert not set(paths) & set(prepared.paths())
    with pytest.raises(ValueError, match="split 'test' is not known"):
        prepared.indices("test")


def test_pixels_are_those_of_the_file(tmp_path):
    data = write_images(tmp_path / "data", shape=(32, 32))
    prepared = prepare(data, image_size=32)
    images, _ = prepared.arrays()
    for row, path in enumerate(prepared.paths()):
        assert np.array_equal(images[row], cv2.imread(f"{data}/{path}", cv2.IMREAD_COLOR_RGB))


def test_second_start_decodes_nothing(tmp_path, monkeypatch):
    data = write_images(tmp_path / "data")
    steps = []
    first = prepare(data, on_progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (40, 40)
    assert steps == sorted(steps)
    monkeypatch.setattr(decoding, "decode_and_fit", None)
    assert prepare(data) == first
    monkeypatch.undo()
    os.environ["CONVSCOUT_CACHE"] = str(tmp_path / "cache")
    assert prepare(data, resize="crop").folder != first.folder
    assert sorted(path.name for path in first.folder.iterdir()) == [
        "groups.npy",
        "images.npy",
        "labels.npy",
        "manifest.json",
        "paths.json",
        "split.npy",
        "test_images.npy",
        "test_labels.npy",
        "test_paths.json",
    ]


@pytest.mark.parametrize("name", ["images.npy", "test_images.npy", "labels.npy", "manifest.json"])
def test_a_damaged_cache_is_made_again(tmp_path, name):
    data = write_images(tmp_path / "data")
    first = prepare(data)
    whole = (first.folder / name).read_bytes()
    for damage in (whole[: len(whole) // 2], b"", None):
        if damage is None:
            (first.folder / name).unlink()
        else:
            (first.folder / name).write_bytes(damage)
        with pytest.raises(RequestError, match="cannot be opened"):
            open_cache(first.folder)
        assert prepare(data).fingerprint == first.fingerprint
        assert len((first.folder / name).read_bytes()) == len(whole)


def test_a_changed_file_makes_another_cache(tmp_path):
    data = write_images(tmp_path / "data")
    first = prepare(data)
    (tmp_path / "data/cat/0.png").write_bytes((tmp_path / "data/cat/1.png").read_bytes())
    second = prepare(data)
    assert second.folder != first.folder
    assert second.fingerprint != first.fingerprint


def test_fingerprint_is_that_of_the_content(tmp_path):
    first = prepare(write_images(tmp_path / "one"))
    second = prepare(write_images(tmp_path / "two"))
    os.utime(tmp_path / "two/cat/0.png", ns=(1, 1))
    assert prepare(str(tmp_path / "two")).folder != second.folder
    assert first.fingerprint == second.fingerprint == prepare(str(tmp_path / "two")).fingerprint
    assert prepare(write_images(tmp_path / "three", seed=1)).fingerprint != first.fingerprint
    assert prepare(str(tmp_path / "one"), val_fraction=0.3).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 8), 32), ((28, 28), 32), ((100, 60), 64), ((90, 300), 96), ((500, 400), 224)]
)
def test_default_image_size(shape, size, tmp_path):
    assert prepare(write_images(tmp_path / "data", each=3, shape=shape)).image_shape == (3, size, size)


def test_grey_keeps_one_channel_only_where_all_are_grey(tmp_path):
    data = write_images(tmp_path / "data", colour=False)
    grey = prepare(data)
    assert grey.image_shape == (1, 32, 32)
    assert grey.arrays()[0].shape == (16, 32, 32, 1)
    assert len(grey.mean) == len(grey.deviation) == 1
    (tmp_path / "data/cat/0.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes())
    assert prepare(data).image_shape == (3, 32, 32)


def test_constant_images_have_a_deviation_of_one(tmp_path):
    for label, value in (("cat", 50), ("dog", 50)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for index in range(4):
            cv2.imwrite(str(tmp_path / "data" / label / f"{index}.png"), np.full((28, 28), value, np.uint8))
    assert prepare(str(tmp_path / "data")).deviation == (1.0,)


def test_bad_files_among_good_ones(tmp_path):
    data = write_images(tmp_path / "data")
    (tmp_path / "data/cat/empty.png").touch()
    (tmp_path / "data/cat/page.jpg").write_text("<html>")
    (tmp_path / "data/dog/half.png").write_bytes((tmp_path / "data/dog/0.png").read_bytes()[:500])
    (tmp_path / "data/dog/notes.txt").write_text("notes")
    prepared = prepare(data)
    assert {each["path"]: each["reason"] for each in prepared.refused} == {
        "cat/empty.png": "empty file (0 bytes)",
        "cat/page.jpg": "text, not an image (starts with '<html>')",
        "dog/half.png": "truncated PNG: no IEND chunk",
        "dog/notes.txt": "not an image file (.txt)",
    }
    assert prepared.manifest["n_images"] == 20
    assert prepared.manifest["sizes"]["width"] == {"min": 30, "median": 30.0, "max": 30}


def test_nothing_usable_is_left(tmp_path):
    data = write_images(tmp_path / "data")
    for index in range(12):
        (tmp_path / f"data/cat/{index}.png").write_bytes(b"")
    with pytest.raises(RequestError) as caught:
        prepare(data)
    assert caught.value.problems[0].startswith("class folder 'cat' in what could be decoded of data")
    assert caught.value.problems[1] == "refused 'cat/0.png': empty file (0 bytes)"
    assert caught.value.problems[-1] == "and 2 more files were refused"
    for index in range(10):
        (tmp_path / f"data/dog/{index}.png").write_bytes(b"")
    with pytest.raises(RequestError, match="holds no image that can be decoded"):
        prepare(data)
    assert list((tmp_path / "cache").iterdir()) == []


def splits_of(prepared):
    split = dict.fromkeys(open_test(prepared.folder)[2], "test")
    for name in ("train", "val"):
        split |= {prepared.paths()[row]: name for row in prepared.indices(name)}
    return split


def photograph(seed):
    """Return an image as photographs are: less structure at fine scales than at coarse ones, and that in brightness."""
    rng = np.random.default_rng(seed)
    kinds = ((3, 3), (6, 3), (12, 1), (24, 1))  # size and channels
    layers = [cv2.resize(rng.integers(0, 256, (size, size, n), dtype=np.uint8), (96, 96)) for size, n in kinds]
    coloured = [layer.reshape(96, 96, -1).repeat(3 // n, axis=2) for layer, (_, n) in zip(layers, kinds, strict=True)]
    return np.average(coloured, axis=0, weights=(4, 3, 2, 1)).astype(np.uint8)


def write_photographs(folder, names):
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        cv2.imwrite(str(folder / name), photograph(zlib.crc32(f"{seed} {folder.parent.name} {folder.name}".encode())))


def test_copies_exact_and_near_stay_on_one_side(tmp_path):
    for label in ("cat", "dog"):
        write_photographs(tmp_path / "data" / label, [f"{index}.png" for index in range(20)])
    cats = tmp_path / "data/cat"
    for index in range(6):
        image = cv2.imread(str(cats / f"{index}.png"))
        cv2.imwrite(str(cats / f"{index}-recompressed.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 50])
        cv2.imwrite(str(cats / f"{index}-small.png"), cv2.resize(image, (60, 60), interpolation=cv2.INTER_AREA))
        (cats / f"{index}-exact.png").write_bytes((cats / f"{index}.png").read_bytes())
    prepared = prepare(str(tmp_path / "data"))
    split, found = splits_of(prepared), prepared.manifest["duplicates"]
    for index in range(6):
        names = ("", "-recompressed", "-small", "-exact")
        where = {split[f"cat/{index}{name}{'.jpg' if 'recomp' in name else '.png'}"] for name in names}
        assert len(where) == 1
    assert sum(found["within"].values()) == 18
    assert (found["across_splits"], found["left_out"], found["pairs"]) == (0, 0, [])


def test_what_a_given_split_has_in_train_too_is_left_out_of_val_and_test(tmp_path):
    for split in ("train", "val", "test"):
        for label in ("cat", "dog"):
            write_photographs(tmp_path / "data" / split / label, [f"{index}.png" for index in range(8)])
    for source, copy in (("train/cat/0", "test/cat/8"), ("train/dog/1", "val/dog/9"), ("val/cat/2", "test/cat/9")):
        image = cv2.imread(str(tmp_path / f"data/{source}.png"))
        cv2.imwrite(str(tmp_path / f"data/{copy}.png"), np.clip(image * 1.01, 0, 255).astype(np.uint8))
    prepared, kept = prepare(str(tmp_path / "data")), prepare(str(tmp_path / "data"), duplicates="keep")
    gone = {"test/cat/8.png", "val/dog/9.png", "test/cat/9.png"}
    assert set(splits_of(kept)) - set(splits_of(prepared)) == gone
    assert prepared.manifest["n_images"] == len(splits_of(prepared)) == 48
    assert prepared.counts["test"] == {"cat": 8, "dog": 8}
    assert prepared.fingerprint != kept.fingerprint
    for manifest, left_out in ((prepared.manifest, 3), (kept.manifest, 0)):
        assert (manifest["duplicates"]["across_splits"], manifest["duplicates"]["left_out"]) == (3, left_out)
    pairs = {pair["path"]: (pair["other_path"], pair["exact"]) for pair in prepared.manifest["duplicates"]["pairs"]}
    assert pairs["test/cat/9.png"] == ("val/cat/2.png", False)


def test_a_given_val_shares_nothing_with_a_test_that_is_made(tmp_path):
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            write_photographs(tmp_path / "data" / split / label, [f"{index}.png" for index in range(20)])
    for index in range(20):  # all of train, so some of what is held out for the test is among them
        image = cv2.imread(str(tmp_path / f"data/train/cat/{index}.png"))
        cv2.imwrite(str(tmp_path / f"data/val/cat/copy{index}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    prepared, kept = prepare(str(tmp_path / "data")), prepare(str(tmp_path / "data"), duplicates="keep")
    assert prepared.counts["test"] == {"cat": 4, "dog": 4}
    assert set(splits_of(kept)) - set(splits_of(prepared)) == {f"val/cat/copy{index}.jpg" for index in range(20)}
    assert prepared.manifest["duplicates"]["left_out"] == 20
    sides = {pair["other_split"] for pair in prepared.manifest["duplicates"]["pairs"]}
    assert sides == {"train", "test"}


def test_every_pair_is_listed(tmp_path):
    for label in ("cat", "dog"):
        write_photographs(tmp_path / "data/train" / label, [f"{index}.png" for index in range(70)])
        write_photographs(tmp_path / "data/test" / label, ["own.png"])
        for path in (tmp_path / "data/train" / label).iterdir():
            shutil.copy(path, tmp_path / "data/test" / label)
    found = prepare(str(tmp_path / "data")).manifest["duplicates"]
    assert len(found["pairs"]) == found["across_splits"] == found["left_out"] == 140
    assert all(pair["exact"] for pair in found["pairs"])


def test_a_split_that_is_all_copies_is_refused_with_the_way_out(tmp_path):
    for label in ("cat", "dog"):
        write_photographs(tmp_path / "data/train" / label, [f"{index}.png" for index in range(4)])
        shutil.copytree(tmp_path / "data/train" / label, tmp_path / "data/test" / label)
    with pytest.raises(RequestError) as caught:
        prepare(str(tmp_path / "data"))
    assert caught.value.problems[0] == (
        "class 'cat': all 4 images of test also stand in train, or in another split; give other images there, or keep "
        "them with --duplicates keep"
    )
    assert prepare(str(tmp_path / "data"), duplicates="keep").counts["test"] == {"cat": 4, "dog": 4}


def test_options_out_of_range_are_all_named(tmp_path):
    with pytest.raises(RequestError) as caught:
        prepare("digits", image_size=12, resize="squish", val_fraction=0.0, test_fraction=0.9)
    assert caught.value.problems == (
        "image size 12 is out of range: allowed are 28 to 224 pixels",
        "resize 'squish' is not known: did you mean 'squash'? allowed are crop, squash",
        "val fraction 0.0 is out of range: allowed are 0.01 to 0.5",
        "test fraction 0.9 is out of range: allowed are 0.01 to 0.5",
    )


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    data = write_images(tmp_path / "data", each=3)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "file/below"))
    with pytest.raises(RequestError, match=r"cache folder .* cannot be made .*: set CONVSCOUT_CACHE"):
        prepare(data)
    monkeypatch.setenv("CONVSCOUT_CACHE", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(cache.os, "access", lambda path, mode: False)
        with pytest.raises(RequestError, match=r"cache folder .* cannot be written: set CONVSCOUT_CACHE"):
            prepare(data)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**20}))
    with pytest.raises(RequestError, match=r"has 1 MB free, and the decoded images need 1 MB"):
        prepare(data, image_size=224)


def test_a_folder_that_is_no_cache(tmp_path):
    with pytest.raises(RequestError, match=r"image cache .* cannot be opened .*: prepare the data again"):
        open_cache(tmp_path)


def test_manifest_is_json(tmp_path):
    prepared = prepare(write_images(tmp_path / "data"))
    assert json.loads((prepared.folder / "manifest.json").read_text()) == prepared.manifest
    assert prepared.manifest["split"] == {
        "given": [],
        "by_group": False,
        "val_fraction": 0.15,
        "test_fraction": 0.2,
        "seed": 0,
    }


@pytest.mark.skipif(not DATA.is_dir(), reason="the real images are not on this machine")
def test_real_images_with_a_given_split():
    prepared = prepare(str(DATA / "cifar10-small.zip"))
    assert prepared.image_shape == (3, 32, 32)
    assert {name: sum(counts.values()) for name, counts in prepared.counts.items()} == {
        "train": 1700,
        "val": 300,
        "test": 1000,
    }
    assert prepared.refused == []

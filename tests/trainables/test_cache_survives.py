"""A cache while things go wrong: a full disk, DATA that changes, several processes at once, a killed one."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from foundation import HaltError, RequestError
from trainables import cache, decoding
from trainables.cache import open_cache, open_test, prepare
from trainables.decode import TOO_LITTLE_MEMORY, BadImage
from trainables.rows import Rows, write_array

HOUSE = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("CONVSCOUT_CACHE", str(folder))
    return folder


@pytest.fixture
def data(tmp_path):
    return write_images(tmp_path / "data", each=12)


@pytest.fixture
def plant(tmp_path, monkeypatch):
    def do(fault):
        monkeypatch.setenv("CONVSCOUT_FAULT", fault)
        monkeypatch.setenv("CONVSCOUT_FAULT_COUNTS", str(tmp_path))

    return do


def write_images(folder, each, classes=("cat", "dog"), side=40):
    random = np.random.default_rng(0)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for index in range(each):
            cv2.imwrite(str(folder / label / f"{index}.png"), random.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return folder


def test_a_disk_that_becomes_full_is_one_sentence_and_leaves_nothing(data, root, plant, monkeypatch):
    plant("cache.image:full:7")
    with pytest.raises(HaltError) as caught:
        prepare(str(data))
    assert str(caught.value) == (
        f"cache folder {str(root)!r} cannot be written (No space left on device), and nothing was left there: make "
        "room, or set CONVSCOUT_CACHE to a folder that has it, and run again"
    )
    assert list(root.iterdir()) == []
    monkeypatch.delenv("CONVSCOUT_FAULT")
    assert prepare(str(data)).manifest["n_images"] == 24


@pytest.mark.parametrize("room", ["900k", "1500k"])  # not enough for what is decoded, or for that and its copy
def test_a_small_disk(tmp_path, monkeypatch, room):
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    data = write_images(tmp_path / "data", each=50, side=64)  # 1,200 KB decoded at 64 pixels
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(disk)]
    mounted = subprocess.run(mounting, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        monkeypatch.setenv("CONVSCOUT_CACHE", str(disk))
        with pytest.raises(RequestError, match=r"has \d MB free, and the decoded images need 2 MB"):
            prepare(str(data))
        # The room was there when it was looked at, and others wrote meanwhile.
        monkeypatch.setattr(cache, "check_room", lambda root, needed_bytes: None)
        with pytest.raises(HaltError, match="No space left on device"):
            prepare(str(data))
        assert list(disk.iterdir()) == []
        assert shutil.disk_usage(disk).used == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_rows_and_arrays(tmp_path):
    with Rows(tmp_path / "scratch", (5, 2, 3)) as rows:
        rows.write(3, np.arange(6, dtype=np.uint8).reshape(2, 3))
        rows.write(0, np.full((2, 2, 3), 7, np.uint8))
        assert rows.read(3).tolist() == [[0, 1, 2], [3, 4, 5]]
        (part,) = rows.parts([1, 3, 0, 2])
        assert part.tolist() == [[[7] * 3] * 2, [[0, 1, 2], [3, 4, 5]], [[7] * 3] * 2, [[0] * 3] * 2]
        assert not rows.read(4).any()
        assert not list(rows.parts([]))
    assert not (tmp_path / "scratch").exists()
    write_array(tmp_path / "a.npy", (3, 2), np.int64, [np.array([[1, 2], [3, 4]]), np.array([[5, 6]])])
    assert np.load(tmp_path / "a.npy").tolist() == [[1, 2], [3, 4], [5, 6]]
    assert np.load(tmp_path / "a.npy").dtype == np.int64


def test_a_disk_that_takes_only_a_part_of_a_row(tmp_path, monkeypatch):
    real, asked = os.pwrite, []

    def part(descriptor, content, at):
        asked.append(len(content))
        return real(descriptor, content[:4], at)

    with Rows(tmp_path / "scratch", (2, 10)) as rows:
        monkeypatch.setattr(os, "pwrite", part)
        rows.write(1, np.arange(10, dtype=np.uint8))
        monkeypatch.undo()
        assert rows.read(1).tolist() == list(range(10))
    assert asked == [10, 6, 2]


def test_rows_are_read_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.rows._READ_AT_ONCE", 25)
    with Rows(tmp_path / "scratch", (5, 10)) as rows:
        rows.write(0, np.arange(50, dtype=np.uint8).reshape(5, 10))
        assert [part[:, 0].tolist() for part in rows.parts([4, 0, 3, 1, 2])] == [[40, 0], [30, 10], [20]]
        os.truncate(tmp_path / "scratch", 45)
        with pytest.raises(OSError, match="has become shorter"):
            rows.read(4)


def test_images_that_come_in_while_others_are_decoded(data, root):
    def copy_in(done, total):
        if done == total:
            shutil.copy(data / "cat/0.png", data / "cat/new.png")

    with pytest.raises(RequestError) as caught:
        prepare(str(data), on_progress=copy_in)
    assert caught.value.problems == (
        f"data {str(data)!r} changed while it was decoded (1 image came in or got another label): wait until nothing "
        "writes to it, and run again",
    )
    assert list(root.iterdir()) == []
    assert prepare(str(data)).manifest["n_images"] == 25


def test_a_label_that_changes_meanwhile(data):
    table = data / "labels.csv"
    rows = [f"{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(data.glob("*/*.png"))]
    table.write_text("path,label\n" + "\n".join(rows))

    def relabel(done, total):
        if done == total:
            table.write_text("path,label\n" + "\n".join([rows[0].replace(",cat", ",dog"), *rows[1:]]))

    with pytest.raises(RequestError, match=r"changed while it was decoded \(1 image came in or got another label\)"):
        prepare(str(table), on_progress=relabel)
    assert prepare(str(table)).manifest["n_images"] == 24


def zipped(data, to, every=1):
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(data.glob("*/*.png"))[::every]:
            archive.write(path, path.relative_to(data))


def test_an_archive_that_is_replaced_or_vanishes_meanwhile(data, tmp_path):
    archive = tmp_path / "data.zip"
    zipped(data, archive)
    for change in (lambda: zipped(data, archive, every=2), archive.unlink):

        def meddle(done, total, change=change):
            if done == total:
                change()

        with pytest.raises(RequestError, match=r"changed while it was decoded \(the archive was written to\): wait"):
            prepare(str(archive), on_progress=meddle)
        zipped(data, archive)
    assert prepare(str(archive)).manifest["n_images"] == 24


def test_a_folder_that_is_gone_when_all_is_read_is_not_missed(data):
    def remove(done, total):
        if done == total and data.exists():
            shutil.rmtree(data)

    assert prepare(str(data), on_progress=remove).manifest["n_images"] == 24


def decode(data, barrier, results):
    try:
        barrier.wait()
        prepared = prepare(data)
        results.put((os.getpid(), prepared.fingerprint, int(prepared.arrays()[0].sum())))
    except BaseException as error:
        results.put((os.getpid(), repr(error), 0))
        raise


def test_several_processes_decode_the_same_data_at_once(data, root):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=decode, args=(str(data), barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=100) for _ in processes]
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len({each[1:] for each in found}) == 1
    assert found[0][1] == prepare(str(data)).fingerprint
    assert len(list(root.iterdir())) == 1


def test_a_cache_that_was_made_meanwhile_is_not_replaced(data, root, monkeypatch):
    def other_is_quicker(done, total):
        if done == total and not list(root.glob("[!.]*")):
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: 1)
                prepare(str(data))
            made.append(next(root.glob("[!.]*")).stat().st_ino)

    made = []
    prepared = prepare(str(data), on_progress=other_is_quicker)
    assert [prepared.folder.stat().st_ino] == made
    assert len(list(root.iterdir())) == 1


def test_a_file_system_without_locks_does_not_matter(data, monkeypatch):
    def refuse(descriptor, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(cache.fcntl, "flock", refuse)
    assert prepare(str(data)).manifest["n_images"] == 24


def test_what_a_killed_decoder_left_is_removed_by_the_next(data, root, plant):
    plant("cache.image:kill:9")
    script = f"from trainables.cache import prepare; prepare({str(data)!r})"
    killed = subprocess.run([sys.executable, "-c", script], cwd=HOUSE, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(root.glob(".*.tmp"))) == 1
    assert prepare(str(data)).manifest["n_images"] == 24
    assert list(root.glob(".*.tmp")) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", b"[]"),
        ("manifest.json", b"{}"),
        ("manifest.json", b'{"image_shape": 3, "counts": 4}'),
        ("split.npy", None),
        ("paths.json", b"[]"),
        ("test_paths.json", b"[\n"),
    ],
)
def test_a_cache_of_which_a_part_is_missing_or_wrong_is_made_again(data, name, content):
    first = prepare(str(data))
    if content is None:
        (first.folder / name).unlink()
    else:
        (first.folder / name).write_bytes(content)
    with pytest.raises(RequestError, match="cannot be opened"):
        open_cache(first.folder)
    assert prepare(str(data)).fingerprint == first.fingerprint
    assert open_cache(first.folder).paths() == first.paths()


def test_half_a_folder_is_made_again(data):
    first = prepare(str(data))
    for path in list(first.folder.iterdir())[::2]:
        path.unlink()
    assert prepare(str(data)).fingerprint == first.fingerprint
    assert len(open_test(first.folder)[2]) == sum(first.counts["test"].values())


@pytest.mark.parametrize("failure", [OSError(errno.EIO, "Input/output error"), BadImage(TOO_LITTLE_MEMORY)])
def test_what_is_wrong_with_the_host_for_a_moment_leaves_no_cache_that_lacks_an_image(data, root, monkeypatch, failure):
    real, asked = decoding.decode_and_fit, []

    def once(content, *given):
        asked.append(content)
        if len(asked) == 3:
            raise failure
        return real(content, *given)

    monkeypatch.setattr(decoding, "decode_and_fit", once)
    with pytest.raises(HaltError, match=r"cannot be read now|too little memory is free"):
        prepare(str(data), image_size=32)
    assert list(root.iterdir()) == []
    assert not prepare(str(data), image_size=32).refused

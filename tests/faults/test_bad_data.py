"""Bad data costs only itself: every bad file is refused with its reason, and every odd one is read as what it shows."""

import codecs
import csv
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_files import (
    DIFFICULT_CLASSES,
    DIFFICULT_NAMES,
    PICTURE,
    bad_images,
    grey_images,
    odd_images,
    turned,
    write_bad_folder,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.deploy import write_model
from foundation import RequestError
from trainables.cache import open_test, prepare
from trainables.decode import BadImage, decode, decode_and_fit
from trainables.images import list_images, open_source
from trainables.memory import MOST_DECODING_BYTES, Budget, decoding_bytes
from trainables.models import build_classifier

HOUSE = Path(__file__).parents[2]
BAD, ODD, GREY = bad_images(), odd_images(), grey_images()
USABLE = ODD["rgba.png"][0]
needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads a process's peak from /proc")


def write_classes(root, *classes, each=4):
    for label in classes:
        (root / label).mkdir(parents=True)
        for number in range(each):
            (root / label / f"{number}.png").write_bytes(USABLE)
    return root


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_with_their_reason(name, capfd):
    content, reason = BAD[name]
    with pytest.raises(BadImage) as caught:
        decode(content)
    assert str(caught.value) == reason
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_read_as_what_they_show(name, capfd):
    content, most = ODD[name]
    assert np.abs(decode(content).astype(int) - PICTURE).mean() <= most
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", GREY)
def test_single_bits_and_grey_keep_black_and_white(name):
    image = decode(GREY[name])
    assert image.shape == (8, 16, 1)
    assert (image[:, :8].max(), image[:, 8:].min()) == (0, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_however_the_camera_was_held_the_pixels_are_equal(kind):
    upright = decode(turned(kind, 1))
    assert np.abs(upright.astype(int) - PICTURE).mean() < 1
    for orientation in range(2, 9):
        assert np.array_equal(decode(turned(kind, orientation)), upright)


@pytest.mark.timeout(120)
@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_any_damage_to_an_image_gives_pixels_or_a_reason(data):
    """Whatever stands in a file, decoding ends with an image of three or one channels, or with `BadImage`."""
    files = {name: content for name, (content, _) in (ODD | BAD).items()} | GREY
    content = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the damage goes to the header, which says how large everything is.
        last = min(len(content), data.draw(st.sampled_from([64, len(content)])))
        where = data.draw(st.integers(0, last))
        damage = data.draw(st.binary(min_size=1, max_size=8))
        content[where : where + len(damage)] = damage
    try:
        image, (_, _, channels) = decode_and_fit(bytes(content), 32, "squash")
    except BadImage as error:
        reason = str(error)
        assert reason.isprintable()
    else:
        assert image.shape == (32, 32, channels)
        assert channels in (1, 3)


def test_a_damaged_entry_of_a_tiff_is_no_crash():
    content = bytearray(BAD["zstandard.tif"][0])
    content[content.index(struct.pack("<HHI", 259, 4, 1)) + 5] = 1  # so many values that they lie behind the file's end
    with pytest.raises(BadImage, match="damaged TIFF: it cannot be decoded"):
        decode(bytes(content))


@pytest.mark.timeout(90)
def test_a_folder_of_everything_at_once(tmp_path):
    """What a tired user does: the data command on a folder with every bad file, and one sentence for each."""
    refused = write_bad_folder(tmp_path / "data")
    command = [sys.executable, str(HOUSE / "convscout.py"), "data", str(tmp_path / "data")]
    environment = os.environ | {"CONVSCOUT_CACHE": str(tmp_path / "cache"), "COLUMNS": "100"}
    as_json = subprocess.run([*command, "--json"], env=environment, capture_output=True, timeout=60, check=True)
    found = json.loads(as_json.stdout)
    assert {row["path"]: row["reason"] for row in found["refused"]} == refused
    usable = {"bad": 4, "odd": len(ODD) + len(GREY) + len(DIFFICULT_NAMES)}
    assert {row["name"]: row["train"] + row["val"] + row["test"] for row in found["rows"]} == usable
    as_text = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
    assert f"{len(refused)} files were refused:" in as_text.stdout.decode()
    assert "bad/loop.png: symbolic link that leads nowhere" in as_text.stdout.decode()
    assert b"\x1b" not in as_text.stdout
    assert as_text.stderr == as_json.stderr == b""


@pytest.mark.timeout(90)
def test_prediction_of_a_folder_of_everything_at_once(tmp_path):
    """Every file gets a class or a reason, in the table, the CSV and on the page; none stops the others."""
    refused = write_bad_folder(tmp_path / "data")
    described = {
        "architecture": "cnn", "image_shape": [3, 28, 28], "classes": ["cat", "dog"], "mean": [127.5] * 3,
        "deviation": [50.0] * 3, "resize": "squash", "metrics": {}, "trained_on": {}, "versions": {},
        "config": {
            "depth": 1, "filters": 4, "kernel": 3, "dense_layers": 1, "dense_units": 4, "dropout": 0.0,
            "activation": "relu", "batch_norm": False,
        },
    }  # fmt: skip
    statistics = {"mean": described["mean"], "deviation": described["deviation"]}
    write_model(
        tmp_path / "model", build_classifier("cnn", (3, 28, 28), 2, described["config"], **statistics), described
    )
    asked = [
        "predict",
        tmp_path / "model",
        tmp_path / "data",
        "--csv",
        tmp_path / "p.csv",
        "--html",
        tmp_path / "p.html",
    ]
    command = [sys.executable, HOUSE / "convscout.py", *asked, "--json"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    found = {row["path"]: row["error"] for row in json.loads(done.stdout)}
    read = [path for path, error in found.items() if error is None]
    assert len(read) == 4 + len(ODD) + len(GREY) + len(DIFFICULT_NAMES)
    reasons = {path.removeprefix(f"{tmp_path}/data/"): error for path, error in found.items() if error is not None}
    for name, (_, reason) in BAD.items():
        assert reasons[f"bad/{name}"] == reason
    assert reasons["bad/pipe.png"] == refused["bad/pipe.png"]
    assert f"{len(reasons)} files were not read:" in done.stderr.decode()
    page = (tmp_path / "p.html").read_text("utf-8")
    assert page.count('<li class="card">') == len(read)
    assert page.count("<img ") == len(read)
    assert "<script" not in page
    assert "\x1b" not in page
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(found)


def test_difficult_names_reach_the_cache_and_come_back(tmp_path):
    folder = write_classes(tmp_path / "data", "cat", "dog")
    for number, raw in enumerate(DIFFICULT_NAMES):
        pixels = np.full((8, 8), number, np.uint8)
        (folder / "cat" / os.fsdecode(raw)).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    listing = list_images(str(folder))
    assert listing.refused == ()
    for number, shown in enumerate(DIFFICULT_NAMES.values()):
        assert decode(listing.source.read(f"cat/{shown}"))[0, 0, 0] == number
    cache = prepare(str(folder), image_size=28)
    listed = {*cache.paths(), *open_test(cache.folder)[2]}
    assert {f"cat/{shown}" for shown in DIFFICULT_NAMES.values()} <= listed


def test_difficult_classes(tmp_path):
    cache = prepare(str(write_classes(tmp_path / "data", *DIFFICULT_CLASSES)), image_size=28)
    assert cache.classes == tuple(sorted(DIFFICULT_CLASSES))
    raw = tmp_path / "raw"
    write_classes(raw, os.fsdecode(b"k\xe4se"), "wurst")
    assert prepare(str(raw), image_size=28).classes == (r"k\xe4se", "wurst")


def test_a_name_that_would_read_like_anothers_is_refused(tmp_path):
    folder = write_classes(tmp_path / "data", "cat", "dog")
    (folder / "cat" / r"caf\xe9.png").write_bytes(USABLE)
    (folder / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(BAD["empty.jpg"][0])
    listing = list_images(str(folder))
    assert [(refusal.path, refusal.reason) for refusal in listing.refused] == [
        (r"cat/caf\xe9.png", "its name is not UTF-8, and written as UTF-8 it is another's")
    ]
    assert listing.source.read(r"cat/caf\xe9.png") == USABLE


def test_data_whose_own_name_is_not_utf8_is_refused(tmp_path):
    folder = write_classes(tmp_path / os.fsdecode(b"k\xe4se"), "cat", "dog")
    with pytest.raises(RequestError, match=r"k\\\\xe4se': its name is not UTF-8; give it another name, or make a link"):
        open_source(str(folder))


@pytest.mark.timeout(20)
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(RequestError, match=r"pipe.tar' is neither a file nor a folder: give a folder, a zip"):
        open_source(str(tmp_path / "pipe.tar"))
    listing = list_images(str(write_classes(tmp_path / "data", "cat", "dog")))
    (tmp_path / "data/cat/0.png").unlink()
    os.mkfifo(tmp_path / "data/cat/0.png")
    with pytest.raises(OSError, match="changed since it was listed"):
        listing.source.read("cat/0.png")


def test_a_user_that_does_not_exist_has_no_data():
    with pytest.raises(RequestError, match="'~nobody-here/data' does not exist"):
        open_source("~nobody-here/data")


@pytest.mark.timeout(20)
def test_folders_that_link_to_one_another_stay_few(tmp_path):
    write_classes(tmp_path, *"abcdefghij", each=3)
    for folder in "abcdefghij":
        for other in set("abcdefghij") - {folder}:
            (tmp_path / folder / f"to-{other}").symlink_to(tmp_path / other)
    listing = list_images(str(tmp_path))
    assert len(listing.items) == 10 * 3 * 10
    assert {refusal.reason for refusal in listing.refused} == {
        "symbolic link to a folder it lies in",
        "symbolic link to a folder, in a folder that is itself reached by one",
    }


@pytest.mark.timeout(20)
def test_three_hundred_folders_inside_one_another(tmp_path):
    write_classes(tmp_path, "cat", "dog")
    home = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path / "cat")
        for _ in range(300):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(home)
        os.close(home)
    refused = list_images(str(tmp_path)).refused
    assert [refusal.reason for refusal in refused] == ["more than 100 folders deep"]


@pytest.fixture
def stranger():
    """Return a folder of a user that is not root, and be that user: nothing but a missing right stops root."""
    codecs.lookup("utf-8-sig")  # what is imported at first use, the other user may not find
    if os.geteuid() != 0:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_unreadable_files_and_folders_and_what_happens_when_they_become_readable(stranger):
    folder = write_classes(stranger / "data", "cat", "dog")
    (folder / "cat/0.png").chmod(0)
    (folder / "dog/inside").mkdir(mode=0)
    listing = list_images(str(folder))
    assert [(refusal.path, refusal.reason) for refusal in listing.refused] == [
        ("cat/0.png", "cannot be read (Permission denied)"),
        ("dog/inside", "folder cannot be read (Permission denied)"),
    ]
    assert len(listing.items) == 7
    table = stranger / "data.csv"
    table.write_text("path,label\n" + "".join(f"data/{item.path},{item.label}\n" for item in listing.items))
    with open(table, "a") as file:
        file.write("data/cat/0.png,cat\n")
    before = list_images(str(table))
    assert before.refused[0].reason.startswith("row 9 names a file that cannot be read (Permission denied): ")
    (folder / "cat/0.png").chmod(0o600)
    (folder / "dog/inside").chmod(0o700)
    after = list_images(str(folder))
    assert (len(after.items), after.refused) == (8, ())
    assert after.key != listing.key  # or a cache from before would go on refusing it
    assert list_images(str(table)).key != before.key
    folder.chmod(0)
    with pytest.raises(RequestError, match="data' cannot be read: permission is denied"):
        open_source(str(folder))
    folder.chmod(0o700)


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_files_that_vanish_or_change_between_listing_and_decoding(kind, tmp_path):
    folder = write_classes(tmp_path / "data", "cat", "dog", each=6)
    data = folder
    if kind == "csv":
        data = folder / "data.csv"
        data.write_text(
            "path,label\n"
            + "".join(f"{label}/{number}.png,{label}\n" for label in ("cat", "dog") for number in range(6))
        )

    def meddle(done, total):
        if done == total // 2 and (folder / "cat/0.png").exists():  # every size is known, nothing is decoded yet
            (folder / "cat/0.png").unlink()
            (folder / "cat/1.png").write_bytes(USABLE + b"more")
            (folder / "cat/2.png").write_bytes(USABLE)
            os.utime(folder / "cat/2.png", ns=(1, 1))

    cache = prepare(str(data), on_progress=meddle)
    assert cache.refused == [
        {"path": "cat/0.png", "reason": "cannot be read (it has vanished since it was listed)"},
        {"path": "cat/1.png", "reason": "cannot be read (it has changed since it was listed)"},
        {"path": "cat/2.png", "reason": "cannot be read (it has changed since it was listed)"},
    ]
    assert sum(cache.counts[split]["cat"] for split in ("train", "val", "test")) == 3


def test_a_search_needs_the_files_no_longer_once_they_are_decoded(tmp_path):
    folder = write_classes(tmp_path / "data", "cat", "dog")
    cache = prepare(str(folder), image_size=28)
    before = cache.arrays()[0][:].tobytes()
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert cache.arrays()[0][:].tobytes() == before


PEAK = """
import sys, threading
from trainables import decode, memory

content = sys.stdin.buffer.read()
count, budget = int(sys.argv[1]), int(sys.argv[3])
memory.DECODING = memory.Budget(budget)
threads = [threading.Thread(target=decode.decode_and_fit, args=(content, 32, "crop")) for _ in range(count)]

def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

decode.decode_and_fit(open(sys.argv[2], "rb").read(), 32, "crop")  # what is loaded at first use is not the image's
together, fit = threading.Barrier(max(min(count, budget // memory.decoding_bytes(content)), 1), timeout=60), decode.fit

def fit_together(*image_and_options):
    together.wait()  # for all whom the budget lets in: each holds its decoded image meanwhile
    return fit(*image_and_options)

decode.fit = fit_together
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS:")
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print((kilobytes("VmHWM:") - before) * 1024)
"""


def peak_bytes(content, tmp_path, *, threads=1, budget_bytes=MOST_DECODING_BYTES):
    """Return by how much a process of its own grows at most while it decodes `content` on so many threads."""
    (tmp_path / "small.png").write_bytes(USABLE)
    command = [sys.executable, "-c", PEAK, str(threads), str(tmp_path / "small.png"), str(budget_bytes)]
    return int(subprocess.run(command, cwd=HOUSE, input=content, capture_output=True, check=True, timeout=90).stdout)


def photograph(kind, side):
    content = {
        "white.png": lambda: cv2.imencode(".png", np.full((side, side, 3), 255, np.uint8))[1],
        "grey.png": lambda: cv2.imencode(".png", np.full((side, side), 255, np.uint8))[1],
        "sixteen-bit-alpha.png": lambda: cv2.imencode(".png", np.full((side, side, 4), 65535, np.uint16))[1],
        "doubles.tif": lambda: cv2.imencode(".tiff", np.full((side, side, 3), 0.5))[1],
        "lossless.webp": lambda: cv2.imencode(".webp", np.full((side, side, 3), 255, np.uint8))[1],
        "progressive.jpg": lambda: cv2.imencode(
            ".jpg", np.full((side, side, 3), 255, np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
        )[1],
        "still.gif": lambda: cv2.imencode(".gif", np.full((side, side, 3), 255, np.uint8))[1],
    }
    return content[kind]().tobytes()


KINDS = (
    "white.png",
    "grey.png",
    "sixteen-bit-alpha.png",
    "doubles.tif",
    "lossless.webp",
    "progressive.jpg",
    "still.gif",
)


@needs_proc
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_takes_no_more_memory_than_was_reckoned(kind, tmp_path):
    content = photograph(kind, 3000)
    reckoned = decoding_bytes(content)
    peak = peak_bytes(content, tmp_path)
    assert reckoned / 8 < peak <= reckoned


@needs_proc
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["huge.png", "huge.gif", "huge.jpg", "huge.tif", "huge.pgm", "huge.bmp"])
def test_a_header_of_thirty_thousand_by_thirty_thousand_takes_no_memory(name):
    command = [sys.executable, "-c", REFUSED]
    done = subprocess.run(command, cwd=HOUSE, input=BAD[name][0], capture_output=True, check=True, timeout=60)
    assert done.stdout.startswith(b"too large: 30000 x 30000 pixels")
    assert int(done.stdout.split()[-1]) < 16e6


@needs_proc
@pytest.mark.timeout(120)
def test_threads_together_stay_within_one_budget(tmp_path):
    """Eight threads with an image reckoned at 192 MB each: two at a time; all eight hold 48 MB each, decoded."""
    content = photograph("white.png", 4000)
    assert len(content) < 200_000
    assert decoding_bytes(content) == 192_000_000
    budgets = (400_000_000, 4_000_000_000)
    two, eight = (peak_bytes(content, tmp_path, threads=8, budget_bytes=budget) for budget in budgets)
    assert two < 300_000_000
    assert eight > 380_000_000


REFUSED = """
import sys
from trainables.decode import BadImage, decode

def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

content = sys.stdin.buffer.read()
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS:")
try:
    decode(content)
except BadImage as error:
    print(error, (kilobytes("VmHWM:") - before) * 1024)
"""


@pytest.mark.timeout(20)
def test_a_budget_serves_who_comes_first():
    budget = Budget(10)
    order = []

    def take(amount, name):
        with budget.reserved(amount):
            order.append(name)

    with budget.reserved(6):
        large = threading.Thread(target=take, args=(8, "large"))
        large.start()
        while not budget._turn.locked():  # until it waits
            pass
        small = threading.Thread(target=take, args=(1, "small"))
        small.start()
        assert order == []
    large.join()
    small.join()
    assert order == ["large", "small"]


def test_no_memory_is_said_and_not_called_damage(monkeypatch):
    def without_memory(*_):
        raise MemoryError

    monkeypatch.setattr("trainables.decode.cv2.imdecodeWithMetadata", without_memory)
    with pytest.raises(BadImage, match="too little memory is free to decode it"):
        decode(USABLE)


def test_bands_make_no_difference(monkeypatch):
    content = cv2.imencode(".png", np.random.default_rng(0).integers(0, 65536, (50, 40, 4), np.uint16))[1].tobytes()
    whole = decode(content)
    monkeypatch.setattr("trainables.decode._BAND_PIXELS", 7 * 40)
    assert np.array_equal(decode(content), whole)
    assert decode_and_fit(content, 32, "squash")[1] == (50, 40, 3)

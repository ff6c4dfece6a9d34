"""The page of a data set: what is on it, what never is, and how a browser shows it at two widths."""

import base64
import html
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from browsing import look

from analysis.data_page import FOLDED_FROM, data_uri, histograms, render, size_sentences, write_data_page
from trainables.cache import prepare
from trainables.overview import overview

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
HOSTILE = "<script>alert(1)<"  # no name holds a "/", but the path goes on with one
NAMES = (HOSTILE, "x" * 180, "a\u202egnp.exe", "\u05e9\u05dc\u05d5\u05dd", "\u732b \U0001f600 {{7*7}} `b`", "q\"'&q")
RED_BGR = (0, 0, 255)


def write(path: Path, random: np.random.Generator, shape: tuple[int, ...] = (30, 40, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", random.integers(0, 200, shape, np.uint8))[1].tobytes())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return data with names that attack a page, copies of every kind, refused files, and a test split that is red."""
    folder = tmp_path_factory.mktemp("hostile") / "<img src=x onerror=alert(3)>"
    random = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        for index in range(60 if number == 0 else 20):
            write(folder / "train" / name / f"{index:02d}<b>.png", random, (30, 30 + 3 * index, 3))
        for index in range(6):
            write(folder / "val" / name / f"{index}.png", random)
            red = np.full((30, 40, 3), RED_BGR, np.uint8)
            red[: number + 2, : index + 2] = 0
            (folder / "test" / name).mkdir(parents=True, exist_ok=True)
            (folder / "test" / name / f"{index}.png").write_bytes(cv2.imencode(".png", red)[1].tobytes())
    for index in range(FOLDED_FROM + 1):
        shutil.copy(folder / "train" / HOSTILE / f"{index:02d}<b>.png", folder / "val" / HOSTILE / f"copy{index}.png")
        (folder / "train" / NAMES[1] / f"broken{index}.png").write_bytes(b"<script>alert(2)</script>")
    for index in range(8):
        shutil.copy(folder / "train" / NAMES[1] / "00<b>.png", folder / "train" / NAMES[1] / f"again{index}.png")
    shutil.copy(folder / "train" / NAMES[3] / "00<b>.png", folder / "train" / NAMES[4] / "wrong.png")
    return folder


@pytest.fixture(scope="module")
def page(hostile: Path) -> str:
    return render(str(hostile), prepare(str(hostile), image_size=32))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for number in range(200):
        for index in range(4 + number % 9):
            write(folder / f"class {number:03d}" / f"{index}.png", random, (28, 28))
    return render(str(folder), prepare(str(folder)))


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(each), np.uint8), cv2.IMREAD_COLOR) for each in found]


def test_it_is_one_file_without_scripts_that_may_not_ask_the_network(page: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert "script-src" not in page
    assert not re.search(r"""(src|href)=["'](?!#|data:image/)""", page)
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "url(" not in page


def test_what_comes_from_outside_is_escaped(page: str) -> None:
    assert "<script" not in page
    assert "<b>" not in page
    assert "<img src=x" not in page
    assert "<bdi>&lt;script&gt;alert(1)&lt;</bdi>" in page
    assert "&lt;img src=x onerror=alert(3)&gt;" in page
    assert "{{7*7}} `b`" in page
    # A character that turns the direction of writing would make an .exe a .png, and the rest of the line with it.
    assert "\u202e" not in page
    assert "a\ufffdgnp.exe" in page
    assert "\u05e9\u05dc\u05d5\u05dd" in page


def test_examples_are_named_and_test_images_are_never_shown(page: str, hostile: Path) -> None:
    shown = pictures(page)
    # Two lines of six for each class, then the copies: a group of nine, cut to six, and one in two classes.
    assert len(shown) == 12 * len(NAMES) + 6 + 2
    assert all(image.shape == (32, 32, 3) for image in shown)
    assert not any((image[-1] == RED_BGR).all() for image in shown)
    titles = [html.unescape(title) for title in re.findall(r'<img [^>]*title="([^"]+)"', page)]
    assert len(titles) == len(shown)
    assert f"train/{HOSTILE}/00<b>.png" in titles
    assert all(title.startswith("train/") for title in titles)
    assert page.count('alt="train/') == len(shown)


def test_each_class_has_a_row_with_its_counts_and_a_bar_by_split(page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", page)
    first = page[page.index('<a href="#class-0">') :].partition("</tr>")[0]
    assert "&lt;script&gt;alert(1)" in first
    assert re.findall(r'class="number">([\d,]+)<', first) == ["60", "6", "6", "72"]
    assert re.findall(r'class="(\w+)" style="width: ([\d.]+)%', first) == [
        ("train", "83.33"),
        ("val", "8.33"),
        ("test", "8.33"),
    ]
    assert page.count('<section id="class-') == len(NAMES) == len(re.findall(r'<a href="#class-', page))
    assert "train, val and test are given by the data" in text


def test_copies_are_side_by_side_and_leaks_say_what_was_done(page: str) -> None:
    copies = page[page.index('<section id="copies">') : page.index('<section id="refused">')]
    assert "2 pictures are there more than once among the training and validation images" in copies
    assert copies.index("in 2 classes") < copies.index("and 3 more")
    assert f"All {FOLDED_FROM + 1} pairs" in copies
    assert copies.count("<td><bdi>left out</bdi></td>") == copies.count("<td><bdi>exact</bdi></td>") == FOLDED_FROM + 1
    assert "Test images and those left out are not shown" in copies


def test_every_refused_file_is_there_with_its_reason(page: str) -> None:
    refused = page[page.index('<section id="refused">') :]
    assert f"<summary>All {FOLDED_FROM + 1} refused files</summary>" in refused
    assert len(re.findall(r"<tr><td><bdi>train/x+/broken\d+\.png</bdi></td><td><bdi>text, not an", refused)) == 21


def test_kept_leaks_are_shown_as_images(tmp_path: Path, hostile: Path) -> None:
    page = render(str(hostile), prepare(str(hostile), image_size=32, duplicates="keep"))
    copies = page[page.index('<section id="copies">') : page.index('<section id="refused">')]
    assert f"{FOLDED_FROM + 1 + 2} pictures are there more than once" in copies
    assert "<td><bdi>kept</bdi></td>" in copies
    assert "(val)" in copies


def test_many_classes_have_one_line_of_images_each(many: str) -> None:
    assert many.count('<section id="class-') == 200
    assert len(pictures(many)) == sum(min(6, int(n)) for n in re.findall(r"\d of (\d+)</span>", many))
    assert len(many) < 4_000_000


def test_few_refused_files_are_not_folded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for index in range(10):
            write(tmp_path / name / f"{index}.png", random)
    (tmp_path / "cat/empty.png").touch()
    page = render(str(tmp_path), prepare(str(tmp_path)))
    assert "<details>" not in page
    assert "<td><bdi>cat/empty.png</bdi></td><td><bdi>empty file (0 bytes)</bdi></td>" in page
    assert "No image is a copy of another" in page


@pytest.mark.parametrize(
    ("side", "channels", "kind"), [(28, 1, "png"), (64, 3, "png"), (65, 1, "jpeg"), (224, 3, "jpeg")]
)
def test_thumbnails_keep_their_colours_and_are_bounded(side: int, channels: int, kind: str) -> None:
    image = np.full((side, side, channels), (200, 100, 50)[:channels], np.uint8)
    uri = data_uri(image)
    assert uri.startswith(f"data:image/{kind};base64,")
    (shown,) = pictures(f'src="{uri}"')
    assert shown.shape == (min(side, 144), min(side, 144), 3)
    expected = (200, 100, 50) if channels == 3 else (200, 200, 200)
    assert np.abs(shown[0, 0, ::-1].astype(int) - expected).max() <= 3


def test_histograms_count_every_file() -> None:
    sides = np.array([(1, 1), (7, 7), (8, 8), (15, 20), (100, 105), (100, 106), (100, 301), (9000, 9000)])
    found = histograms(sides)
    sizes = [(bar.name, bar.count) for bar in found["short side"] if bar.count]
    assert sizes == [("1 to 7 px", 2), ("8 to 15 px", 2), ("96 to 127 px", 3), ("from 8,192 px", 1)]
    shapes = [(bar.name, bar.count) for bar in found["long side to short side"]]
    assert shapes == [
        ("square", 5),
        ("up to 1.3 : 1 (5 : 4)", 1),
        ("up to 1.4 : 1 (4 : 3)", 1),
        ("up to 1.6 : 1 (3 : 2)", 0),
        ("up to 2 : 1 (16 : 9)", 0),
        ("up to 3 : 1", 0),
        ("longer", 1),
    ]
    assert [bar.percent for bar in found["short side"] if bar.count] == pytest.approx([200 / 3, 200 / 3, 100, 100 / 3])
    assert histograms(sides[:0]) == {}


def test_what_resizing_does_is_said(hostile: Path) -> None:
    found = overview(prepare(str(hostile), image_size=32))
    sides = np.array([(20, 20), (40, 80), (40, 40), (40, 41)])
    assert size_sentences(sides, found, 4) == (
        "Of the files, 25.0 % have a short side below the 32 pixels they are used at and are enlarged.",
        "25.0 % are not square: these change their proportions (`--resize crop` keeps them, and cuts to the centre "
        "square).",
    )
    cropped = overview(prepare(str(hostile), image_size=32, resize="crop"))
    enlarged, uneven = size_sentences(sides, cropped, 5000)
    assert enlarged.startswith("Of 4 files, taken evenly from 5,000, 25.0 % have")
    assert uneven == (
        "25.0 % are not square: these lose what lies outside the centre square (`--resize squash` keeps it)."
    )
    assert "not known" in size_sentences(sides[:0], found, 4)[0]


@pytest.mark.parametrize("width_px", [390, 1280])
def test_in_a_browser_nothing_overflows_or_is_missing(
    page: str, many: str, hostile: Path, tmp_path: Path, width_px: int
) -> None:
    path = tmp_path / "page.html"
    write_data_page(str(hostile), prepare(str(hostile), image_size=32), path)
    seen = look(path, width_px, tmp_path)
    seen.assert_well()
    assert seen.width == width_px
    assert seen.images == len(pictures(page))
    assert HOSTILE in seen.text
    path.write_text(many, encoding="utf-8")
    look(path, width_px, tmp_path).assert_well()


@pytest.mark.parametrize(
    ("name", "classes", "copies"),
    [("photos-small.zip", 10, 4), ("cifar10-small.zip", 10, 0), ("digits", 10, 0)],
)
def test_real_images(tmp_path: Path, name: str, classes: int, copies: int) -> None:
    data = name if name == "digits" else str(SHARED / name)
    if name != "digits" and not (SHARED / name).exists():
        pytest.skip(f"no {SHARED / name} here")
    path = tmp_path / "page.html"
    write_data_page(data, prepare(data), path)
    page = path.read_text("utf-8")
    assert len(pictures(page)) == 12 * classes + 2 * copies
    look(path, 390, tmp_path).assert_well()

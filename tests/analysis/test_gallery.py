"""The page of predictions: every image with its classes, every bad file with its reason, and nothing that runs."""

import base64
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from analysis import gallery as showing
from analysis.deploy import Prediction
from analysis.gallery import gallery, write_gallery

DESCRIPTION: dict[str, Any] = {"architecture": "cnn", "classes": ["<b>cat", "dog", "emu", "fox"]}
SHARES = {"<b>cat": 0.05, "dog": 0.8, "emu": 0.1, "fox": 0.05}


def picture(path: Path, width: int = 60, height: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))
    return path


def dog(path: Path) -> Prediction:
    return Prediction(str(path), "dog", 0.8, SHARES)


def test_an_image_with_its_three_likeliest_classes(tmp_path: Path) -> None:
    page = gallery([dog(picture(tmp_path / "a.png"))], DESCRIPTION)
    assert re.findall(r'<span class="name">(.*?)</span><span>(.*?)</span>', page) == [
        ("dog", "80.0 %"),
        ("emu", "10.0 %"),
        ("&lt;b&gt;cat", "5.0 %"),
    ]
    assert re.findall(r'style="width: ([\d.]+)%"', page) == ["80.0", "10.0", "5.0"]
    assert "By cnn, 4 classes." in page
    assert "<b>dog</b> 1 image<" in page
    assert "could not be read" not in page


@pytest.mark.parametrize(
    ("width", "height", "shown"), [(60, 30, (128, 64)), (30, 60, (64, 128)), (500, 2, (128, 12)), (1, 1, (128, 128))]
)
def test_thumbnails_are_inside_the_page_in_their_own_proportions(
    tmp_path: Path, width: int, height: int, shown: tuple[int, int]
) -> None:
    page = gallery([dog(picture(tmp_path / "a.png", width, height))], DESCRIPTION)
    [(encoded, *sides)] = re.findall(r'<img src="data:image/jpeg;base64,([^"]*)" width="(\d+)" height="(\d+)"', page)
    assert tuple(int(side) for side in sides) == shown
    image = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape == (128, 128, 3)
    assert np.abs(image.astype(int) - 90).max() <= 2


def test_files_that_could_not_be_read_are_listed_with_their_reasons(tmp_path: Path) -> None:
    page = gallery(
        [dog(picture(tmp_path / "a.png")), Prediction(str(tmp_path / "b.png"), error="empty file")], DESCRIPTION
    )
    assert '<a class="failed" href="#not-read">1 file could not be read</a>' in page
    assert '<li><span>b.png</span><span class="quiet">empty file</span></li>' in page
    assert "1 image classified" in page


def test_the_folder_of_all_is_said_once(tmp_path: Path) -> None:
    files = [picture(tmp_path / name) for name in ("deep/a.png", "deep/er/b.png")]
    page = gallery([dog(file) for file in files], DESCRIPTION)
    assert f"In {tmp_path / 'deep'}<" in page
    assert re.findall(r'<p class="path">(.*?)</p>', page) == ["a.png", "er/b.png"]


def test_paths_without_a_folder_in_common_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(Path("b.png"))
    page = gallery([dog(picture(tmp_path / "deep/a.png")), dog(Path("b.png"))], DESCRIPTION)
    assert re.findall(r'<p class="path">(.*?)</p>', page) == [str(tmp_path / "deep/a.png"), "b.png"]
    assert "In " not in page


def test_nothing_from_outside_is_markup_and_nothing_is_fetched(tmp_path: Path) -> None:
    names = [b"<script>alert(1).png", b'"onerror=x.png', b"caf\xe9.png", b"\x1b[31mred.png"]
    files = [picture(tmp_path / "plain.png").rename(tmp_path / os.fsdecode(name)) for name in names]
    write_gallery([*map(dog, files), Prediction("<i>.png", error="<u>")], DESCRIPTION, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<i>\.png|<u>|<b>cat|\x1b", page)
    assert "&lt;script&gt;alert(1).png" in page
    assert r"caf\xe9.png" in page
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)


def test_of_many_images_the_first_are_shown_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "MOST_SHOWN", 2)
    files = [picture(tmp_path / f"{number}.png") for number in range(5)]
    unread = [Prediction(f"{number}.jpg", error="empty file") for number in range(3)]
    page = gallery([*map(dog, files), *unread], DESCRIPTION)
    assert page.count('<li class="card">') == 2
    assert "And 3 more that are not shown; --csv FILE lists all." in page
    assert page.count("empty file") == 2
    assert "And 1 more; --csv FILE lists all." in page
    assert "5 images classified" in page


def test_a_file_that_is_gone_by_now_has_no_picture(tmp_path: Path) -> None:
    page = gallery([dog(tmp_path / "gone.png")], DESCRIPTION)
    assert "gone since" in page
    assert "<img" not in page


def test_a_page_of_nothing_but_bad_files(tmp_path: Path) -> None:
    page = gallery([Prediction("b.png", error="empty file")], DESCRIPTION)
    assert "0 images classified" in page
    assert '<li class="card">' not in page

"""The page of `convscout predict --html`: every image with its likeliest classes, in one file that works offline."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.deploy import Prediction, image_bytes
from analysis.html import render_page
from analysis.pictures import jpeg_data_uri
from analysis.wording import percent
from foundation import count, printable, written_beside
from trainables.decode import BadImage, decode_and_fit
from trainables.sources import utf8

# A thumbnail takes some 4 kB of the page; a thousand of them open quickly on a telephone too.
MOST_SHOWN = 1000
THUMBNAIL_PIXELS = 128
LEAST_PIXELS = 12
TOP = 3


@dataclass(frozen=True)
class Thumbnail:
    """A small image as a data URI, and the size in pixels at which it has the aspect ratio of its file."""

    uri: str
    width: int
    height: int


def write_gallery(predictions: Sequence[Prediction], description: Mapping[str, Any], path: Path) -> None:
    """Write the page to `path`, whole or not at all; of more than a thousand images the first are shown.

    `description` is the `model.json` of the model that predicted. The image files are read again; one that is gone by
    now is shown without a picture. Files that could not be classified are listed with their reasons.
    """
    page = gallery(predictions, description)
    with written_beside(path) as beside:
        beside.write_text(page, encoding="utf-8", errors="backslashreplace")


def gallery(predictions: Sequence[Prediction], description: Mapping[str, Any]) -> str:
    """Return the page as one HTML text."""
    classified = [each for each in predictions if each.error is None]
    unread = [each for each in predictions if each.error is not None]
    shown = classified[:MOST_SHOWN]
    folder = _common_folder(each.path for each in predictions)
    with ThreadPoolExecutor() as readers:
        thumbnails = list(readers.map(_thumbnail, (Path(each.path) for each in shown)))
    return render_page(
        "gallery.html",
        n_classified=count(len(classified), "image"),
        model=f"{description['architecture']}, {count(len(description['classes']), 'class')}",
        folder=printable(utf8(folder)),
        counts=[
            (label, count(number, "image"))
            for label, number in Counter(each.label for each in classified).most_common()
        ],
        cards=[
            (_shown(each.path, folder), thumbnail, _likeliest(each))
            for each, thumbnail in zip(shown, thumbnails, strict=True)
        ],
        n_left_out=len(classified) - len(shown),
        unread=[(_shown(each.path, folder), each.error) for each in unread[:MOST_SHOWN]],
        n_unread=len(unread),
        n_unread_files=count(len(unread), "file"),
    )


def _likeliest(prediction: Prediction) -> Iterable[tuple[str, str, float]]:
    """Return (class, probability as a text, probability) of the likeliest classes, best first."""
    best = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:TOP]
    return [(name, percent(probability), probability) for name, probability in best]


def _thumbnail(path: Path) -> Thumbnail | None:
    try:
        image, (height, width, _) = decode_and_fit(image_bytes(path), THUMBNAIL_PIXELS, "squash")
    except (BadImage, OSError):
        return None
    sides = (max(round(THUMBNAIL_PIXELS * side / max(height, width)), LEAST_PIXELS) for side in (width, height))
    return Thumbnail(jpeg_data_uri(image), *sides)


def _common_folder(paths: Iterable[str]) -> str:
    """Return the folder that all files lie in, which is said once; "" where there is none or it says nothing."""
    with suppress(ValueError):  # nothing at all, or paths that are absolute and others that are not
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    return ""


def _shown(path: str, folder: str) -> str:
    return printable(utf8(os.path.relpath(path, folder) if folder else path))

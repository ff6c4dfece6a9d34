"""What TensorBoard shows of the test images: each contender's confusion matrix, and the shipped model's worst mistakes.

Both are of the first final training of the contender, in the run `NNNN/test` of that trial.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.evaluate import Predictions
from analysis.matrix_picture import matrix_picture
from analysis.page import HeatMap
from analysis.pictures import enlarged, png
from analysis.wording import percent
from cluster.ledger import Ledger
from cluster.tensorboard_images import BoardImage, write_images
from foundation import count

MISTAKE_PX = 192  # the least side of a mistake: a browser blurs what it has to enlarge


def write_board(folder: Path, ledger: Ledger, analysis: dict[str, Any], predictions: Predictions) -> None:
    """Write the images of an analysis that has tested, in place of those of any earlier one.

    Raises OSError where they cannot be written.
    """
    classes = tuple(analysis["experiment"]["classes"])
    images: dict[int, list[BoardImage]] = {}
    for contender in analysis["contenders"]:
        if finals := contender.get("finals"):
            images[finals[0]["trial"]] = [_confusion(contender, classes)]
            if finals[0]["trial"] == analysis["chosen"]["trial"]:
                images[finals[0]["trial"]] += _mistakes(contender, analysis["worst"], predictions.worst_images)
    write_images(folder, images, seq=ledger.history.last_seq, time=ledger.history.tests_opened[-1]["time"])


def _confusion(contender: dict[str, Any], classes: tuple[str, ...]) -> BoardImage:
    figures, final = contender["first_test"], contender["finals"][0]
    tested = count(figures["n_images"], "test image")
    title = f"{contender['name']} (trial {final['trial']}): {percent(figures['accuracy'])} of {tested}"
    picture = matrix_picture(HeatMap(title, classes, tuple(map(tuple, figures["confusion"]))))
    words = (
        f"{title} right, after {count(final['epochs'], 'epoch')}. Rows are the true classes, columns the predicted; "
    )
    words += "the stronger the colour, the larger the share of the class's images."
    return _image("confusion_matrix", picture, final["epochs"], words)


def _mistakes(
    contender: dict[str, Any], worst: list[dict[str, Any]], images: NDArray[np.uint8]
) -> Iterator[BoardImage]:
    for rank, (row, image) in enumerate(zip(worst, images, strict=True), start=1):
        said = f"{row['true']} taken for {row['predicted']}, {percent(row['probability'])}"
        words = f"{_code(row['path'])} is of class {_code(row['true'])}; the model that ships ({contender['name']}) "
        words += f"was {percent(row['probability'])} sure of {_code(row['predicted'])}."
        epochs = contender["finals"][0]["epochs"]
        yield _image(f"worst_mistakes/{rank:02d}: {said}", enlarged(image, MISTAKE_PX), epochs, words)


def _image(tag: str, picture: NDArray[np.uint8], step: int, description: str) -> BoardImage:
    height, width = picture.shape[:2]
    return BoardImage(tag, png(picture), width, height, step, description)


def _code(name: str) -> str:
    """Return a name as Markdown shows it unchanged."""
    return f"`{name.replace('`', chr(39))}`"

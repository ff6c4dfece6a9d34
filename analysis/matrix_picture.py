"""A confusion matrix as an image, for where nothing but images is shown."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from analysis.drawing import COUNTED_CLASSES, LIGHT_SHADES, SHADED_SHARES
from analysis.page import HeatMap

FONT = cv2.FONT_HERSHEY_SIMPLEX
# So that ten classes fit TensorBoard's cards, which are 350 pixels wide and make larger images smaller by leaving out.
FONT_SCALE, TEXT_HEIGHT_PX, LINE_PX, GAP_PX = 0.42, 9, 22, 5
CELL_PX, SIDE_PX, NAME_PX = 27, 240, 120  # the least side of a cell and of a matrix, the most that a name takes
BARE_SIDE_PX = 800  # of a matrix without words, before its cells are whole pixels
INK, PAPER = (28, 36, 48), (255, 255, 255)

Picture = NDArray[np.uint8]


def matrix_picture(matrix: HeatMap) -> Picture:
    """Return a confusion matrix as an image (height, width, 3; RGB): the stronger a cell, the larger the row's share.

    Up to `COUNTED_CLASSES` classes are named, and the cells hold their counts, none where it is 0. Beyond, words would
    be illegible: the heat map alone is drawn, the true classes from top to bottom, the predicted from left to right.
    """
    shares = np.asarray(matrix.shares)
    stops = np.array([[int(shade[at : at + 2], 16) for at in (1, 3, 5)] for shade in LIGHT_SHADES])
    colours = np.stack([np.interp(shares, SHADED_SHARES, stops[:, channel]) for channel in range(3)], axis=2)
    cells = colours.round().astype(np.uint8)
    n = len(matrix.names)
    if n > COUNTED_CLASSES:
        side = max(1, BARE_SIDE_PX // n)
        return cells.repeat(side, axis=0).repeat(side, axis=1)
    cell = max(CELL_PX, SIDE_PX // n, GAP_PX + max(_width(str(number)) for row in matrix.counts for number in row))
    grid = cells.repeat(cell, axis=0).repeat(cell, axis=1)
    grid[::cell], grid[:, ::cell] = PAPER, PAPER
    for true, row in enumerate(matrix.counts):
        for predicted, number in enumerate(row):
            if number:
                place = grid[true * cell : (true + 1) * cell, predicted * cell : (predicted + 1) * cell]
                _write(place, str(number), (cell - _width(str(number))) // 2, dark=shares[true, predicted] <= 0.5)
    return _framed(grid, [_fitting(name) for name in matrix.names], cell, matrix.title)


def _framed(grid: Picture, names: list[str], cell: int, title: str) -> Picture:
    """Return the cells with the classes' names to the left and, turned, below, what the axes are, and a title."""
    side, longest = len(grid), max(map(_width, names)) + 2 * GAP_PX
    left = _blank(side, longest)
    for number, name in enumerate(names):
        _write(left[number * cell : (number + 1) * cell], name, longest - GAP_PX - _width(name))
    margin, top = LINE_PX + longest, LINE_PX
    width = max(margin + side, _width(title)) + 2 * GAP_PX
    picture = _blank(top + side + longest + LINE_PX, width)
    _write(picture[:top], title, GAP_PX)
    picture[top : top + side, :LINE_PX] = np.rot90(_centred("true class", side))
    picture[top : top + side, LINE_PX:margin] = left
    picture[top : top + side, margin : margin + side] = grid
    picture[top + side : top + side + longest, margin : margin + side] = np.rot90(left)  # read from the foot up
    picture[-LINE_PX:, margin : margin + side] = _centred("predicted class", side)
    return picture


def _centred(text: str, width: int) -> Picture:
    line = _blank(LINE_PX, width)
    _write(line, text, (width - _width(text)) // 2)
    return line


def _blank(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, np.uint8)


def _write(place: Picture, text: str, left: int, *, dark: bool = True) -> None:
    """Write a line of text into a part of an image, at half its height."""
    inked: Any = np.ascontiguousarray(place)
    foot = (len(place) + TEXT_HEIGHT_PX) // 2
    cv2.putText(inked, _drawable(text), (left, foot), FONT, FONT_SCALE, INK if dark else PAPER, 1, cv2.LINE_AA)
    place[:] = inked


def _width(text: str) -> int:
    return int(cv2.getTextSize(_drawable(text), FONT, FONT_SCALE, 1)[0][0])


def _fitting(name: str) -> str:
    """Return a name, cut with dots at its end where it is wider than what a name may take."""
    if _width(name) <= NAME_PX:
        return name
    return next(cut for end in range(len(name), -1, -1) if _width(cut := name[:end] + "...") <= NAME_PX)


def _drawable(text: str) -> str:
    """Return a text without the surrogates that undecodable file names bring: OpenCV 5 crashes on them."""
    return text.encode("utf-8", "replace").decode()

import cv2
import numpy as np
import pytest

from analysis.matrix_picture import CELL_PX, NAME_PX, _fitting, _width, matrix_picture
from analysis.page import HeatMap
from analysis.pictures import enlarged, png

DARKEST, LIGHTEST = (0x08, 0x51, 0x9C), (0xF4, 0xF6, 0xF8)


def matrix(n: int, mistakes: dict[tuple[int, int], int] | None = None, title: str = "", name: str = "c") -> HeatMap:
    counts = np.eye(n, dtype=int) * 80
    for place, number in (mistakes or {}).items():
        counts[place] = number
    return HeatMap(title, tuple(f"{name}{number}" for number in range(n)), tuple(map(tuple, counts.tolist())))


def cells(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour)).all(axis=2)


def test_a_large_matrix_is_a_bare_heat_map_with_rows_of_true_classes():
    picture = matrix_picture(matrix(40, {(3, 7): 320}))  # 320 of 400 images of class 3
    assert picture.shape == (800, 800, 3)
    assert picture.dtype == np.uint8
    at = [number * 20 + 10 for number in range(40)]
    assert tuple(picture[at[0], at[0]]) == DARKEST
    assert tuple(picture[at[0], at[1]]) == tuple(picture[at[7], at[3]]) == LIGHTEST
    share_80, share_20 = picture[at[3], at[7]], picture[at[3], at[3]]
    assert tuple(share_20) == (0x9E, 0xCA, 0xE1)
    assert all(DARKEST[channel] < share_80[channel] < share_20[channel] for channel in range(3))


def test_more_classes_than_pixels_are_still_a_picture():
    counts = ((0,) * 900,) * 900
    assert matrix_picture(HeatMap("", ("c",) * 900, counts)).shape == (900, 900, 3)


def test_ten_classes_fit_a_card_and_have_their_cells_in_order():
    picture = matrix_picture(matrix(10, {(1, 8): 5}))
    assert max(picture.shape) <= 350
    dark = cells(picture, DARKEST)
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    assert rows[-1] - rows[0] + 2 == columns[-1] - columns[0] + 2 == 10 * CELL_PX
    top, left = rows[0] - 1, columns[0] - 1
    shade = picture[top + CELL_PX + 2, left + 8 * CELL_PX + 2]
    assert tuple(shade) != LIGHTEST
    assert tuple(picture[top + 8 * CELL_PX + 2, left + CELL_PX + 2]) == LIGHTEST


def test_counts_are_written_in_the_cells_and_a_zero_is_not():
    without, with_five = matrix_picture(matrix(5)), matrix_picture(matrix(5, {(0, 4): 5}))
    dark = cells(without, DARKEST)
    top, left = np.flatnonzero(dark.any(axis=1))[0] - 1, np.flatnonzero(dark.any(axis=0))[0] - 1
    side = (np.flatnonzero(dark.any(axis=1))[-1] - top + 1) // 5
    inside = np.s_[top + 2 : top + side - 2, left + 4 * side + 2 : left + 5 * side - 2]
    assert len(np.unique(without[inside].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(with_five[inside].reshape(-1, 3), axis=0)) > 1
    assert with_five[inside].min() < 80  # dark on a light cell
    assert (
        without[top + 2 : top + side - 2, left + 2 : left + side - 2].min(axis=2).max() > 200
    )  # and light on a dark one


def test_long_counts_widen_the_cells_and_a_long_title_the_picture():
    narrow, wide = matrix_picture(matrix(15)), matrix_picture(matrix(15, {(0, 0): 1_234_567}))
    assert wide.shape[1] - narrow.shape[1] >= 15 * 20
    assert matrix_picture(matrix(3, title="a title of many words " * 5)).shape[1] > narrow.shape[1]


@pytest.mark.parametrize("name", ["Größe ", "猫", "\udcff", "", "\n\t", "word " * 40])
def test_any_name_of_a_class_can_be_drawn(name):
    picture = matrix_picture(matrix(20, name=name, title=name))
    assert picture.shape[2] == 3
    assert _width(_fitting(name * 50)) <= NAME_PX


def test_a_name_that_is_too_long_ends_in_dots():
    assert _fitting("short") == "short"
    assert _fitting("x" * 100).endswith("x...")


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_enlarged_by_whole_pixels_and_kept_exactly(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 8, channels), dtype=np.uint8)
    large = enlarged(image, 12)
    assert large.shape == (15, 24, channels)
    assert (large[1::3, 1::3] == image).all()
    assert enlarged(image, 3).shape == image.shape
    read = cv2.imdecode(np.frombuffer(png(image), np.uint8), cv2.IMREAD_UNCHANGED)
    assert (read.reshape(image.shape)[:, :, ::-1] == image).all()

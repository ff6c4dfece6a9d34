import json
import re
from pathlib import Path
from typing import Any

import pytest
from example_analysis import CLASSES, example_analysis

from analysis.drawing import draw, templates
from analysis.page import Axis, HeatMap, Line, Parallel, Plot, Points
from analysis.report import render, write_report


@pytest.fixture(scope="module")
def page() -> str:
    return render(example_analysis())


def without_library(page: str) -> str:
    """The page less plotly.js, which is the longest script."""
    return page.replace(max(re.findall(r"<script>.*?</script>", page, re.DOTALL), key=len), "")


def test_it_is_one_file_that_may_not_ask_the_network(page: str) -> None:
    assert "default-src 'none'" in page
    own = without_library(page)
    assert len(own) < 1_000_000 < len(page)
    assert not re.search(r"""(src|href)=["'](?!#|data:image/png;base64,)""", own)
    assert "http" not in re.sub(r"http-equiv", "", own)
    assert page.count("plotly.js v") == 1


def test_what_comes_from_outside_is_escaped(page: str) -> None:
    own = without_library(page)
    assert "<b>bird" not in own
    assert "<script>alert" not in own
    assert "&lt;b&gt;bird&lt;/b&gt;" in own
    assert own.count("<script>") == own.count("</script>") == 1


def test_figures_in_the_page_are_what_was_drawn(page: str) -> None:
    found = re.search(r"^const figures = (.*);$", page, re.MULTILINE)
    assert found
    figures = json.loads(found.group(1))
    assert len(set(re.findall(r'id="figure-(\d+)"', page))) == len(figures)
    (matrix,) = [figure for figure in figures if figure["data"][0]["type"] == "heatmap"]
    heat_map = matrix["data"][0]
    assert heat_map["text"][0][0] == str(example_analysis()["contenders"][0]["first_test"]["confusion"][0][0])
    # plotly reads its texts as HTML, so they hold escaped names.
    assert matrix["layout"]["xaxis"]["ticktext"][1] == "&lt;b&gt;bird&lt;/b&gt;"


def test_every_section_has_its_anchor_in_the_navigation(page: str) -> None:
    anchors = re.findall(r'<a href="#([a-z-]+)">', page)
    assert anchors == re.findall(r'<section id="([a-z-]+)">', page)
    assert len(anchors) == 21


def test_failed_and_missing_sections_are_visible() -> None:
    analysis = example_analysis(n_seeds=1)
    del analysis["chosen"]
    analysis["experiment"]["counts"] = None
    own = without_library(render(analysis))
    assert "This section could not be made: AttributeError" in own
    assert "Not yet: no model has been chosen to ship" in own
    assert "(1 seed: no interval)" in own


def test_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    analysis = example_analysis()
    analysis["experiment"]["refused"][0]["path"] = "undecodable \udcff name"
    write_report(analysis, path)
    assert "undecodable \ufffd name" in path.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_plotly_accepts_what_is_drawn() -> None:
    from plotly import graph_objects

    lines = (Line("a", "mean", (1, 2), (0.5, None)), Line("b", "g", (1, 2), (0, 1), True))
    plot = Plot("t", "x", "y", lines, mark=2, sentence="")
    points = (
        Points("a", "stopped", ("p", "q"), (1.0, 2.0), ("", ""), 0.5),
        Points("m", "median", ("p",), (1.0,), ("",)),
    )
    categories = Plot("t", "x", "y", points=points, categories=("p", "q"), sentence="")
    log = Plot("t", "x", "y", lines, x_log=True, x_range=(1, 10), x_ticks=(1, 10), size="small", sentence="")
    heat_map = HeatMap("", CLASSES[:2], ((3, 1), (0, 0)), sentence="")
    axis = Axis("a_b", (1, None), ("1", "off"), (0.5, -0.1), ((0.5, "1"),))
    parallel = Parallel("", ("one", "two"), (axis, axis), (("best", (1,)), ("others", (0,))), sentence="")
    for figure in (plot, categories, log, heat_map, parallel):
        for template in templates().values():
            drawn = draw(figure)
            graph_objects.Figure(data=drawn["data"], layout={**drawn["layout"], "template": template})


def test_lines_of_one_group_share_a_colour_and_faint_ones_have_no_legend() -> None:
    lines = (Line("seed 1", "training", (1,), (1.0,), True), Line("mean", "training", (1,), (1.0,)))
    faint, strong = draw(Plot("", "x", "y", lines, sentence=""))["data"]
    assert faint["line"]["color"] == strong["line"]["color"]
    assert (faint["showlegend"], strong["showlegend"]) == (False, True)
    assert strong["mode"] == "markers"


@pytest.mark.parametrize(("n", "counted"), [(2, True), (20, True), (36, False), (200, False)])
def test_a_confusion_matrix_stays_legible(n: int, counted: bool) -> None:
    names = tuple(f"class {number}" for number in range(n))
    counts = tuple(tuple(int(row == column) for column in range(n)) for row in range(n))
    drawn: dict[str, Any] = draw(HeatMap("", names, counts, sentence=""))
    assert bool(drawn["data"][0]["texttemplate"]) == counted
    assert drawn["least_width_px"] / n >= 14
    assert drawn["layout"]["height"] / n >= 14
    assert drawn["layout"]["xaxis"]["ticktext"] == list(names)
    assert drawn["data"][0]["hovertext"][0][1] == "class 0 taken for class 1: 0 (0.0 %)"


def test_points_of_categories_are_spread_within_them_and_medians_are_not() -> None:
    names = ("<i>a</i>",) * 30 + ("b",)
    points = Points("n", "stopped", names, (1.0,) * 31, ("",) * 31)
    medians = Points("m", "median", ("<i>a</i>", "b"), (1.0, 1.0), ("", ""))
    drawn = draw(Plot("", "", "y", points=(points, medians), categories=("<i>a</i>", "b"), sentence=""))
    places = drawn["data"][0]["x"]
    assert all(abs(place) <= 0.25 for place in places[:30])
    assert len({round(place, 3) for place in places[:30]}) == 30
    assert abs(places[30] - 1) <= 0.25
    assert drawn["data"][1]["x"] == [0.0, 1.0]
    assert drawn["layout"]["xaxis"]["ticktext"] == ["&lt;i&gt;a&lt;/i&gt;", "b"]


def test_lines_of_parallel_coordinates_are_by_band_with_a_gap_after_each() -> None:
    axes = tuple(Axis(name, (1, 2, 3), ("1", "2", "3"), (0.0, 0.5, 1.0), ()) for name in ("learning_rate", "b"))
    bands = (("best", (2,)), ("others", (0, 1)))
    drawn = draw(Parallel("", ("trial 4", "trial 5", "trial 6"), axes, bands, sentence=""))
    others, best, upright = drawn["data"]  # the best band lies on top
    assert (best["name"], best["x"], best["y"]) == ("best", [0, 1, None], [1.0, 1.0, None])
    assert others["y"] == [0.0, 0.0, None, 0.5, 0.5, None]
    assert best["text"] == ["trial 6: learning_rate 3", "trial 6: b 3", ""]
    assert upright["x"] == [0, 0, None, 1, 1, None]
    assert drawn["least_width_px"] == 2 * 84


def test_the_numbers_of_figures() -> None:
    line = Line("validation", "validation", (1, 2), (0.5, None))
    assert Plot("", "epoch", "loss", (line,), sentence="").numbers == (
        ("series", "epoch", "loss"),
        (("validation", 1, 0.5), ("validation", 2, None)),
    )
    points = Points("stopped", "stopped", ("sgd",), (0.4,), ("trial 3",))
    assert Plot("", "option", "accuracy", (line,), (points,), sentence="").numbers[1] == (
        ("validation", 1, 0.5, ""),
        ("validation", 2, None, ""),
        ("stopped", "sgd", 0.4, "trial 3"),
    )
    assert HeatMap("", ("cat", "dog"), ((3, 1), (0, 2)), sentence="").numbers == (
        ("true class", "cat", "dog"),
        (("cat", 3, 1), ("dog", 0, 2)),
    )
    axis = Axis("momentum", (0.9, None), ("0.9", "not active"), (0.8, -0.1), ())
    assert Parallel("", ("trial 1", "trial 2"), (axis,), (), sentence="").numbers == (
        ("trial", "momentum"),
        (("trial 1", 0.9), ("trial 2", None)),
    )


def test_names_that_are_wider_than_a_cell_stand_upright_with_room_below() -> None:
    short, long = (
        draw(HeatMap("", names, ((1, 0), (0, 1)), sentence=""))["layout"]
        for names in (("a", "b"), ("a", "black_headed_monkey"))
    )
    assert (short["xaxis"]["tickangle"], long["xaxis"]["tickangle"]) == (0, 90)
    assert long["height"] - short["height"] == 7 * len("black_headed_monkey") - 40

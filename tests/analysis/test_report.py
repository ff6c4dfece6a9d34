import json
import re
from pathlib import Path
from typing import Any

import pytest
from example_analysis import CLASSES, example_analysis

from analysis.drawing import draw, templates
from analysis.page import HeatMap, Line, Plot
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
    assert len(own) < 500_000 < len(page)
    assert not re.search(r"""(src|href)=["'](?!#|data:image/png)""", own)
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
    assert len(figures) == len(set(re.findall(r'id="figure-(\d+)"', page))) >= 15
    (matrix,) = [figure for figure in figures if figure["data"][0]["type"] == "heatmap"]
    heat_map = matrix["data"][0]
    assert heat_map["text"][0][0] == str(example_analysis()["contenders"][0]["first_test"]["confusion"][0][0])
    # plotly reads its texts as HTML, so they hold escaped names.
    assert matrix["layout"]["xaxis"]["ticktext"][1] == "&lt;b&gt;bird&lt;/b&gt;"


def test_every_section_has_its_anchor_in_the_navigation(page: str) -> None:
    anchors = re.findall(r'<a href="#([a-z-]+)">', page)
    assert anchors == re.findall(r'<section id="([a-z-]+)">', page)
    assert len(anchors) == 20


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

    plot = Plot("t", "x", "y", (Line("a", "mean", (1, 2), (0.5, None)), Line("b", "g", (1, 2), (0, 1), True)), mark=2)
    heat_map = HeatMap("", CLASSES[:2], ((3, 1), (0, 0)))
    for figure in (plot, heat_map):
        for template in templates().values():
            drawn = draw(figure)
            graph_objects.Figure(data=drawn["data"], layout={**drawn["layout"], "template": template})


def test_lines_of_one_group_share_a_colour_and_faint_ones_have_no_legend() -> None:
    lines = (Line("seed 1", "training", (1,), (1.0,), True), Line("mean", "training", (1,), (1.0,)))
    faint, strong = draw(Plot("", "x", "y", lines))["data"]
    assert faint["line"]["color"] == strong["line"]["color"]
    assert (faint["showlegend"], strong["showlegend"]) == (False, True)
    assert strong["mode"] == "markers"


@pytest.mark.parametrize(("n", "counted"), [(2, True), (20, True), (36, False), (200, False)])
def test_a_confusion_matrix_stays_legible(n: int, counted: bool) -> None:
    names = tuple(f"class {number}" for number in range(n))
    counts = tuple(tuple(int(row == column) for column in range(n)) for row in range(n))
    drawn: dict[str, Any] = draw(HeatMap("", names, counts))
    assert bool(drawn["data"][0]["texttemplate"]) == counted
    assert drawn["least_width_px"] / n >= 14
    assert drawn["layout"]["height"] / n >= 14
    assert drawn["layout"]["xaxis"]["ticktext"] == list(names)
    assert drawn["data"][0]["hovertext"][0][1] == "class 0 taken for class 1: 0 (0.0 %)"


def test_names_that_are_wider_than_a_cell_stand_upright_with_room_below() -> None:
    short, long = (
        draw(HeatMap("", names, ((1, 0), (0, 1))))["layout"] for names in (("a", "b"), ("a", "black_headed_monkey"))
    )
    assert (short["xaxis"]["tickangle"], long["xaxis"]["tickangle"]) == (0, 90)
    assert long["height"] - short["height"] == 7 * len("black_headed_monkey") - 40

"""The report in a browser: no script error, nothing missing or overflowing, no request, at the width of a desk and a
telephone."""

import re
from pathlib import Path

import pytest
from browsing import look
from example_analysis import example_analysis

from analysis.report import write_report

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("look") / "report.html"
    write_report(example_analysis(), path)
    return path


@pytest.mark.parametrize("width_px", [1280, 390])
def test_the_report_is_whole_and_within_its_width(report: Path, width_px: int, tmp_path: Path) -> None:
    seen = look(report, width_px, tmp_path)
    seen.assert_well()
    assert seen.images == 5
    drawn = len(re.findall(r'id="figure-\d+"', report.read_text(encoding="utf-8")))
    assert drawn >= 15
    assert seen.figures == drawn
    assert "could not be made" not in seen.text


def test_figures_and_tables_are_saved_as_a_spreadsheet_reads_them(report: Path, tmp_path: Path) -> None:
    probe = """
    const saved = [];
    window.Blob = class { constructor(parts) { saved.push(parts.join("")); } };
    URL.createObjectURL = () => "#";
    HTMLAnchorElement.prototype.click = () => {};
    document.querySelector("#confusion-matrix button[data-figure]").click();
    document.querySelector("#leaderboard button[data-table]").click();
    document.querySelector("#history-of-the-best button[data-figure]").click();
    document.body.textContent = saved.map((text) => text.split("\\r\\n").slice(0, 3).join("|")).join("@@");
    """
    page = report.read_text(encoding="utf-8").replace("</body>", f"<script>{probe}</script></body>")
    (tmp_path / "probed.html").write_text(page, encoding="utf-8")
    matrix, board, history = look(tmp_path / "probed.html", 1280, tmp_path).text.split("@@")
    assert matrix.startswith("true class,aeroplane,<b>bird</b>,cat & dog,deer,'=frog,horse")
    assert board.split("|")[0].startswith("rank,trial,architecture,rung,epochs,status,val_loss")
    assert board.split("|")[1].startswith("1,")
    assert history.split("|")[0] == "line,trial,val_accuracy"
    assert history.split("|")[1].startswith("completed,")

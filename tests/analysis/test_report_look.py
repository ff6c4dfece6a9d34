"""The report in a browser: no script error, nothing missing or overflowing, no request, at the width of a desk and a
telephone."""

import csv
import io
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


@pytest.mark.parametrize("width_px", [390, 1280])
def test_in_a_browser_all_is_drawn_nothing_overflows_and_the_numbers_can_be_had(
    report: Path, tmp_path: Path, width_px: int
) -> None:
    seen, page = look(report, width_px, tmp_path), report.read_text(encoding="utf-8")
    seen.assert_well()
    assert "could not be made" not in seen.text
    assert seen.figures == page.count('<div class="drawn"') > 50
    assert seen.images == 5
    assert len(seen.downloads) == page.count('<button class="csv"')
    leaderboard = next(text for text in seen.downloads if text.startswith("rank,"))
    rows = list(csv.DictReader(io.StringIO(leaderboard)))
    assert len(rows) == 40
    assert (rows[0]["trial"], rows[0]["rung"], rows[0]["val_accuracy"]) == ("3", "30", "83.5 %")
    matrix = next(text for text in seen.downloads if text.startswith("true class,aeroplane"))
    # A class named "=frog" would be a formula; a comma or a quote would end a cell.
    assert "'=frog" in matrix.splitlines()[0].split(",")
    by_class = next(text for text in seen.downloads if text.startswith("class,precision"))
    assert "\n'=frog," in by_class


@pytest.mark.parametrize("width_px", [390, 1280])
def test_in_a_browser_a_report_without_results_is_well_too(tmp_path: Path, width_px: int) -> None:
    analysis = example_analysis(n_trials=0)
    for part in ("contenders", "chosen", "tests_opened", "comparisons", "alike", "ablations", "worst", "learned"):
        del analysis[part]
    path = tmp_path / "report.html"
    write_report(analysis, path)
    seen = look(path, width_px, tmp_path)
    seen.assert_well()
    assert seen.figures == 0
    assert "Not yet: no trial of the search has ended yet." in seen.text

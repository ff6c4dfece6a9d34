"""The report: analysis.json drawn as one HTML file that works offline and asks the network for nothing."""

from datetime import datetime
from pathlib import Path

from markupsafe import Markup

from analysis.drawing import draw, templates
from analysis.html import render_page
from analysis.page import Analysis
from analysis.sections import build_sections
from foundation import written_beside


def write_report(analysis: Analysis, path: Path) -> None:
    """Write the report on `analysis` to `path`, whole or not at all.

    It draws only from `analysis`; what is missing there is a section that says so. Everything from outside is
    escaped, and plotly.js is inside the file, which is therefore about 5 MB.
    """
    page = render(analysis)
    with written_beside(path) as beside:
        beside.write_text(page, encoding="utf-8", errors="backslashreplace")


def render(analysis: Analysis) -> str:
    """Return the report as one HTML text."""
    from plotly.offline import get_plotlyjs

    sections = build_sections(analysis)
    figures = [draw(figure) for content in sections.values() for figure in getattr(content, "figures", ())]
    return render_page(
        "report.html",
        name=analysis["experiment"]["name"],
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        sections=sections,
        figures=figures,
        templates=templates(),
        # "</script" inside the library would end the element early; it holds none today, and this keeps it so.
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )

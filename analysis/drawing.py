"""The numbers of a figure -> what plotly.js draws: plain dictionaries, in colours that suit light and dark pages."""

import html
from typing import Any

from analysis.page import Figure, HeatMap, Line, Plot, Scatter

# Readable on white and on black, and apart for the colour-blind (after Okabe and Ito, 2008).
COLOURS = ("#0b84d8", "#e08a00", "#12a17a", "#d1567f", "#8a6fd1", "#b5651d", "#5aa0c8", "#8c8c3a", "#7a7a7a", "#c23b22")
STATES = ("completed", "stopped", "failed")
NAMED = {"training": "#e08a00", "validation": "#0b84d8", "mean": "#0b84d8", "chance": "#8a8a8a"}

# Cells of a confusion matrix hold their counts up to this many classes; beyond, pointing at a cell shows its count.
COUNTED_CLASSES = 20

# The colours of a share of 0, 0.2 and 1 in a heat map: the middle one comes early, so that a few per cent of mistakes
# can be seen beside a strong diagonal.
SHADED_SHARES = (0.0, 0.2, 1.0)
LIGHT_SHADES, DARK_SHADES = ("#f4f6f8", "#9ecae1", "#08519c"), ("#1d232b", "#2f6390", "#8fceff")


def draw(figure: Figure) -> dict[str, Any]:
    """Return `{data, layout, least_width_px, most_width_px}` for plotly.js: the widths between which it is legible.

    Names from outside are escaped, because plotly reads its texts as HTML.
    """
    match figure:
        case HeatMap():
            return _heat_map(figure)
        case Scatter():
            return _scatter(figure)
        case Plot():
            return _plot(figure)


def templates() -> dict[str, dict[str, Any]]:
    """Return the plotly templates `light` and `dark`: text, grid and the colours of a heat map, on no background."""
    return {
        "light": _template("#1c2430", "#e3e6ea", shades=LIGHT_SHADES),
        "dark": _template("#e4e7eb", "#333a44", shades=DARK_SHADES),
    }


def _template(text: str, grid: str, *, shades: tuple[str, str, str]) -> dict[str, Any]:
    scale = [list(stop) for stop in zip(SHADED_SHARES, shades, strict=True)]
    axis = {"gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "ticks": "", "automargin": True}
    return {
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": text, "family": "system-ui, sans-serif", "size": 13},
            "xaxis": axis,
            "yaxis": axis,
        },
        "data": {"heatmap": [{"colorscale": scale}]},
    }


def _plot(figure: Plot) -> dict[str, Any]:
    groups = list(dict.fromkeys(line.group for line in figure.lines if line.group not in NAMED))
    colours = NAMED | {group: COLOURS[(number + 1) % len(COLOURS)] for number, group in enumerate(groups)}
    yaxis: dict[str, Any] = {"title": {"text": figure.y_title}}
    if figure.y_range:
        yaxis["range"] = list(figure.y_range)
    layout: dict[str, Any] = {
        "title": _title(figure.title),
        "xaxis": {"title": {"text": figure.x_title}},
        "yaxis": yaxis,
        "margin": {"l": 50, "r": 12, "t": 56 if figure.title else 12, "b": 40},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "hovermode": "closest" if figure.square else "x unified",
        "height": 560 if figure.square else 360,
    }
    if figure.mark is not None:
        line = {"type": "line", "x0": figure.mark, "x1": figure.mark, "y0": 0, "y1": 1, "yref": "paper"}
        layout["shapes"] = [line | {"line": {"color": "#8a8a8a", "dash": "dot", "width": 1.5}}]
        place = {"x": figure.mark, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
        layout["annotations"] = [place | {"text": html.escape(figure.mark_text), "font": {"size": 12}}]
    data = [_line(line, colours[line.group]) for line in figure.lines]
    return {"data": data, "layout": layout, "least_width_px": 0, "most_width_px": 600 if figure.square else 1120}


def _title(text: str) -> dict[str, Any]:
    place = {"x": 0, "xref": "container", "y": 1, "pad": {"t": 14}, "yanchor": "top"}
    return {"text": html.escape(text), "font": {"size": 14}, **place}


def _scatter(figure: Scatter) -> dict[str, Any]:
    colours = dict(zip(STATES, ("#0b84d8", "#e08a00", "#c23b22"), strict=True))
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": html.escape(group.name),
            "x": [html.escape(x) if isinstance(x, str) else x for x in group.x],
            "y": list(group.y),
            "opacity": 0.75,
            "marker": {"color": colours.get(group.name, "#8a8a8a"), "size": 7},
        }
        for group in figure.groups
    ]
    if figure.line:
        data.append(_line(figure.line, "#12a17a") | {"line": {"color": "#12a17a", "width": 2.5, "shape": "hv"}})
    texts = any(isinstance(x, str) for group in figure.groups for x in group.x)
    xaxis = {"title": {"text": figure.x_title}, "type": "category" if texts else "log" if figure.log_x else "linear"}
    layout = {
        "title": _title(figure.title),
        "xaxis": xaxis,
        "yaxis": {"title": {"text": "" if figure.small else figure.y_title}},
        "margin": {"l": 50, "r": 12, "t": 46 if figure.title else 12, "b": 40},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0},
        "showlegend": not figure.small,
        "hovermode": "closest",
        "height": 250 if figure.small else 360,
    }
    return {"data": data, "layout": layout, "least_width_px": 0, "most_width_px": 360 if figure.small else 1120}


def _line(line: Line, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines" if len(line.x) > 1 else "markers",
        "name": html.escape(line.name),
        "legendgroup": line.group,
        "showlegend": not line.faint,
        "hoverinfo": "skip" if line.faint else "all",
        "x": list(line.x),
        "y": list(line.y),
        "zorder": 2 if line.group == "mean" else 0 if line.faint else 1,
        "opacity": 0.35 if line.faint else 1.0,
        "line": {"color": colour, "width": 1 if line.faint else 2.5},
    }


def _heat_map(figure: HeatMap) -> dict[str, Any]:
    n = len(figure.names)
    names = [html.escape(name) for name in figure.names]
    cell_px = max(14, min(44, 760 // n))
    shares = figure.shares
    trace = {
        "type": "heatmap",
        "z": [list(row) for row in shares],
        "zmin": 0.0,
        "zmax": 1.0,
        "xgap": 1,
        "ygap": 1,
        "text": [[str(count) if count else "" for count in row] for row in figure.counts],
        "texttemplate": "%{text}" if n <= COUNTED_CLASSES else "",
        "hovertext": [
            [
                f"{names[true]} taken for {names[predicted]}: {count:,} ({100 * shares[true][predicted]:.1f} %)"
                for predicted, count in enumerate(row)
            ]
            for true, row in enumerate(figure.counts)
        ],
        "hoverinfo": "text",
        "showscale": False,
    }
    ticks = {"tickvals": list(range(n)), "ticktext": names, "tickfont": {"size": 12 if cell_px > 20 else 10}}
    bare = {"showgrid": False, "zeroline": False}
    # Names that do not fit side by side stand upright: plotly tilts them and leaves out those that stick out.
    longest_px = 7 * max(map(len, figure.names))
    upright = longest_px > cell_px
    layout = {
        "xaxis": ticks
        | bare
        | {"title": {"text": "predicted class", "standoff": 12}, "tickangle": 90 if upright else 0},
        "yaxis": ticks | bare | {"title": {"text": "true class", "standoff": 12}, "autorange": "reversed"},
        "margin": {"l": 50, "r": 12, "t": 12, "b": 40},
        "height": n * cell_px + 80 + (longest_px if upright else 40),
    }
    least, most = (n * side_px + 140 for side_px in (min(cell_px, 26), cell_px))
    return {"data": [trace], "layout": layout, "least_width_px": least, "most_width_px": most}

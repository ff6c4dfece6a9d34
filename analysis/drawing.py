"""The numbers of a figure -> what plotly.js draws: plain dictionaries, in colours that suit light and dark pages."""

import html
import math
from typing import Any

from analysis.page import HeatMap, Line, Parallel, Plot

# Readable on white and on black, and apart for the colour-blind (after Okabe and Ito, 2008).
COLOURS = ("#0b84d8", "#e08a00", "#12a17a", "#d1567f", "#8a6fd1", "#b5651d", "#5aa0c8", "#8c8c3a", "#7a7a7a", "#c23b22")
NAMED = {
    "training": "#e08a00",
    "validation": "#0b84d8",
    "mean": "#0b84d8",
    "chance": "#8a8a8a",
    "best": "#e08a00",
    "median": "#e08a00",
    "completed": "#0b84d8",
    "stopped": "#0b84d8",
    "failed": "#c23b22",
}
SYMBOLS = {"stopped": "circle-open", "failed": "x-thin", "median": "line-ew"}
# Colour and width of the bands of parallel coordinates, best first.
BANDS = (("#e08a00", 3.0), ("#0b84d8", 2.0), ("#5aa0c8", 1.5), ("#8a8a8a", 1.0))
TITLE = {"font": {"size": 14}, "x": 0, "xref": "container", "y": 1, "pad": {"t": 14}, "yanchor": "top"}
MARGIN = {"l": 50, "r": 12, "t": 12, "b": 40}
LEGEND = {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}

# So many letters of categories fit below a small plot.
SMALL_LETTERS = 14
# Cells of a confusion matrix hold their counts up to this many classes; beyond, pointing at a cell shows its count.
COUNTED_CLASSES = 20

# The colours of a share of 0, 0.2 and 1 in a heat map: the middle one comes early, so that a few per cent of mistakes
# can be seen beside a strong diagonal.
SHADED_SHARES = (0.0, 0.2, 1.0)
LIGHT_SHADES, DARK_SHADES = ("#f4f6f8", "#9ecae1", "#08519c"), ("#1d232b", "#2f6390", "#8fceff")


def draw(figure: Plot | HeatMap | Parallel) -> dict[str, Any]:
    """Return `{data, layout, least_width_px, most_width_px}` for plotly.js: the widths between which it is legible.

    Names from outside are escaped, because plotly reads its texts as HTML.
    """
    match figure:
        case HeatMap():
            return _heat_map(figure)
        case Parallel():
            return _parallel(figure)
        case Plot():
            return _plot(figure)


def templates() -> dict[str, dict[str, Any]]:
    """Return the plotly templates `light` and `dark`: text, grid and the colours of a heat map, on no background."""
    return {
        "light": _template("#1c2430", "#e3e6ea", "#ffffffc0", shades=LIGHT_SHADES),
        "dark": _template("#e4e7eb", "#333a44", "#12161bc0", shades=DARK_SHADES),
    }


def _template(text: str, grid: str, veil: str, *, shades: tuple[str, str, str]) -> dict[str, Any]:
    scale = [list(stop) for stop in zip(SHADED_SHARES, shades, strict=True)]
    axis = {"gridcolor": grid, "linecolor": grid, "zerolinecolor": grid, "ticks": "", "automargin": True}
    return {
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": text, "family": "system-ui, sans-serif", "size": 13},
            "xaxis": axis,
            "yaxis": axis,
            "annotationdefaults": {"bgcolor": veil},
        },
        "data": {"heatmap": [{"colorscale": scale}]},
    }


def _plot(figure: Plot) -> dict[str, Any]:
    named = [line.group for line in figure.lines] + [points.group for points in figure.points]
    groups = [group for group in dict.fromkeys(named) if group not in NAMED]
    colours = NAMED | {group: COLOURS[(number + 1) % len(COLOURS)] for number, group in enumerate(groups)}
    small = figure.size == "small"
    layout: dict[str, Any] = {
        "title": TITLE | {"text": html.escape(figure.title)},
        "xaxis": _x_axis(figure),
        "yaxis": {"title": {"text": figure.y_title}} | ({"range": list(figure.y_range)} if figure.y_range else {}),
        "margin": {
            "l": 36 if small else 50,
            "r": 12,
            "t": (32 if small else 56) if figure.title else 12,
            "b": 24 if small else 40,
        },
        "showlegend": not small,
        "legend": LEGEND,
        "hovermode": "closest" if figure.square or figure.points else "x unified",
        "height": 560 if figure.square else 200 if small else 360,
    }
    if figure.mark is not None:
        line = {"type": "line", "x0": figure.mark, "x1": figure.mark, "y0": 0, "y1": 1, "yref": "paper"}
        layout["shapes"] = [line | {"line": {"color": "#8a8a8a", "dash": "dot", "width": 1.5}}]
        place = {"x": figure.mark, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}
        layout["annotations"] = [place | {"text": html.escape(figure.mark_text), "font": {"size": 12}}]
    data = [_line(line, colours[line.group]) for line in figure.lines]
    data += _points(figure, colours)
    return {"data": data, "layout": layout, "least_width_px": 0, "most_width_px": 600 if figure.square else 1120}


def _x_axis(figure: Plot) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": figure.x_title}}
    if figure.categories:
        names = [html.escape(name) for name in figure.categories]
        axis |= {"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.5, len(names) - 0.5]}
        crowded = figure.size == "small" and sum(map(len, figure.categories)) > SMALL_LETTERS
        axis |= {"tickangle": -45 if crowded else 0, "ticklabeloverflow": "allow"} if figure.size == "small" else {}
        return axis | {"zeroline": False, "showgrid": False}
    if figure.x_log:
        axis["type"] = "log"
    if figure.x_ticks:
        axis |= {"tickvals": list(figure.x_ticks), "ticktext": [f"{tick:g}" for tick in figure.x_ticks]}
    if figure.x_range:
        low, high = (math.log10(end) if figure.x_log else end for end in figure.x_range)
        axis["range"] = [low - 0.04 * (high - low), high + 0.04 * (high - low)]
    return axis


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
        "line": {"color": colour, "width": 1 if line.faint else 2.5, "shape": "hv" if line.stepped else "linear"},
    }


def _points(figure: Plot, colours: dict[str, str]) -> list[dict[str, Any]]:
    seen = dict.fromkeys(figure.categories, 0)

    def place(x: float | str, group: str) -> float:
        if not isinstance(x, str):
            return x
        if group == "median":
            return float(figure.categories.index(x))
        seen[x] += 1  # the golden section spreads any number of points evenly, the same ones each time
        return figure.categories.index(x) + 0.5 * ((seen[x] * 0.6180339887) % 1 - 0.5)

    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": html.escape(points.name),
            "x": [place(x, points.group) for x in points.x],
            "y": list(points.y),
            "text": [html.escape(text) for text in points.texts],
            "hovertemplate": "%{text}<extra></extra>",
            "opacity": 0.4 + 0.6 * points.strength,
            "marker": {
                "color": colours[points.group],
                "symbol": SYMBOLS.get(points.group, "circle"),
                "size": 30 if points.group == "median" else 7,
                "line": {"width": 3 if points.group == "median" else 1.5, "color": colours[points.group]},
            },
        }
        for points in figure.points
    ]


def _parallel(figure: Parallel) -> dict[str, Any]:
    """Draw lines rather than plotly's own `parcoords`, which needs WebGL and a page that may evaluate texts."""
    columns = range(len(figure.axes))
    drawn = zip(figure.bands, BANDS, strict=False)
    data = [_band(figure, name, trials, *look) for (name, trials), look in drawn][::-1]
    axes: dict[str, Any] = {"x": [], "y": []}
    labels = []
    for column in columns:
        axes["x"] += [column, column, None]
        axes["y"] += [0, 1, None]
        for place, text in figure.axes[column].ticks:
            at = {"x": column, "y": place, "text": html.escape(text), "showarrow": False, "xanchor": "right"}
            labels.append(at | {"xshift": -3, "font": {"size": 11}, "borderpad": 1})
    upright = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    data.append(upright | axes | {"line": {"color": "#8a8a8a", "width": 1.5}})
    names = [html.escape(axis.name).replace("_", "_<br>") for axis in figure.axes]
    bare = {"showgrid": False, "zeroline": False, "fixedrange": True}
    lowest = min(min(axis.places) for axis in figure.axes)
    reach = {"range": [-0.75, len(figure.axes) - 0.85]}
    layout = {
        "title": TITLE | {"text": html.escape(figure.title)},
        "xaxis": bare | reach | {"tickvals": list(columns), "ticktext": names, "tickangle": 0, "side": "top"},
        "yaxis": bare | {"showticklabels": False, "range": [min(0.0, lowest) - 0.05, 1.05]},
        "annotations": labels,
        "margin": {"l": 12, "r": 24, "t": 60, "b": 40},
        "legend": LEGEND | {"traceorder": "reversed"},
        "hovermode": "closest",
        "height": 400,
    }
    return {"data": data, "layout": layout, "least_width_px": 84 * len(figure.axes), "most_width_px": 1120}


def _band(figure: Parallel, name: str, trials: tuple[int, ...], colour: str, width: float) -> dict[str, Any]:
    """Return the lines of one band as one trace, with a gap after each."""
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for trial in trials:
        x += [*range(len(figure.axes)), None]
        y += [*(axis.places[trial] for axis in figure.axes), None]
        texts += [html.escape(f"{figure.trials[trial]}: {each.name} {each.texts[trial]}") for each in figure.axes]
        texts.append("")
    return {
        "type": "scatter",
        "mode": "lines",
        "name": html.escape(name),
        "x": x,
        "y": y,
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour, "width": width},
        "opacity": 0.5 if width < 2 else 0.9,
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

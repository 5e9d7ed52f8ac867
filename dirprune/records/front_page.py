"""The front as one interactive page that works offline: everything that it needs is inside the file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from dirprune.cost import COST_METRICS
from dirprune.files import write_atomically
from dirprune.records.appearance import label_of
from dirprune.records.finalists import Finalist
from dirprune.records.front import sort_front
from dirprune.records.record import TrialRecord
from dirprune.records.scene import Axis, Point, Scene, make_scene
from dirprune.records.tables import format_architecture
from dirprune.study.objectives import Objective

SYMBOLS = {"dense": "star", "uniform": "square", "reference": "diamond", "warm-start": "triangle-up"}
SIZES = {"front": 13, "dominated": 8, "stopped": 7, "searched": 9, "finalist": 9, "final": 13}
MAX_WITH_CHANNELS = 2000  # trials; of more, only the front's points list channels: pages stay small
OPACITIES = {"front": 1.0, "dominated": 0.35, "stopped": 0.5, "searched": 0.35, "finalist": 0.6, "final": 1.0}
LINE, FADED_LINE = "#444", "#ccc"
_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "toImageButtonOptions": {"format": "svg", "filename": "front"},
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; color: #222; background: #fff; margin: 1.2rem auto;
       padding: 0 1rem; max-width: 76rem; }}
h1 {{ font-size: 1.3rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1rem; margin: 1.4rem 0 .2rem; }}
p {{ margin: 0 0 .6rem; color: #555; }}
#picture {{ height: min(70vh, 40rem); min-height: 24rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; width: 100%; }}
th, td {{ padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }}
th {{ border-bottom: 2px solid #999; }}
.text {{ text-align: left; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
<div id="picture">{picture}</div>
{tables}
</body>
</html>
"""
_TABLE = """<div class="table"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>"""


def write_front_html(
    path: Path,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    title: str = "Pareto front",
    finalists: Sequence[Finalist] = (),
) -> None:
    """Write the interactive front: first objective against the second, then the front as a table.

    Where there are finalists, theirs is the front, with bars of one standard deviation over the seeds; that
    of the search is faded behind it and is the second table.

    Args:
        path: File to write.
        records: Every trial, with `is_front` set.
        objectives: The study's objectives, at least one.
        title: Shown as text, whatever it holds.
        finalists: By macs, the final front marked.
    """
    scene = make_scene(records, objectives, finalists)
    picture = make_figure(scene).to_html(
        full_html=False, include_plotlyjs=True, default_height="100%", div_id="front", config=_CONFIG
    )
    tables = [_format_table(sort_front(records), objectives)]
    if finalists:
        finals = [finalist for finalist in finalists if finalist.record.is_front]
        spreads = {finalist.record.number: finalist.spread for finalist in finals}
        first = _format_table([finalist.record for finalist in finals], objectives, spreads)
        tables = [first, "<h2>Front of the search</h2>", *tables]
    page = _PAGE.format(
        title=escape(title),
        summary=escape(_summarise(records, finalists)),
        picture=picture,
        tables="\n".join(tables),
    )
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def make_figure(scene: Scene) -> go.Figure:
    """Return the interactive figure of a scene."""
    figure = go.Figure()
    name = "front" if scene.across.metric else "best so far"
    if scene.searched_line:
        _add_line_(figure, scene.searched_line, scene.is_held, FADED_LINE, "front of the search")
        name = "final front"
    if scene.line:
        _add_line_(figure, scene.line, scene.is_held, LINE, name)
    for role in ("stopped", "dominated", "searched", "front", "finalist", "final"):
        for category, colour in scene.colours.items():
            points = [p for p in scene.points if p.role == role and scene.category_of(p.record) == category]
            if points:
                figure.add_trace(_make_trace(scene, points, category, colour))
    _add_legend_(figure, scene)
    figure.update_xaxes(**_axis_layout(scene.across, scene))
    figure.update_yaxes(**_axis_layout(scene.up, scene))
    figure.update_layout(
        template="plotly_white",
        margin={"l": 70, "r": 20, "t": 40, "b": 60},
        hoverlabel={"align": "left", "bgcolor": "#fff", "font": {"size": 12, "color": "#222"}},
        legend={"itemsizing": "constant", "groupclick": "togglegroup", "tracegroupgap": 8},
        hovermode="closest",
    )
    return figure


def _add_line_(
    figure: go.Figure, line: Sequence[tuple[float, float]], is_held: bool, colour: str, name: str
) -> None:
    figure.add_scatter(
        x=[x for x, _ in line],
        y=[y for _, y in line],
        mode="lines",
        line={"color": colour, "width": 1.5, "shape": "hv" if is_held else "vh"},
        hoverinfo="skip",
        name=name,
    )


def _make_trace(scene: Scene, points: Sequence[Point], category: str, colour: str) -> go.Scatter:
    role = points[0].role
    symbols = [SYMBOLS.get(point.record.source, "circle") for point in points]
    marker: dict[str, Any] = {
        "symbol": "x-thin" if role == "stopped" else symbols,
        "size": SIZES[role],
        "color": colour,
        "line": {"width": 1.5, "color": colour if role == "stopped" else "#222"}
        if role not in ("dominated", "searched")
        else {"width": 0},
    }
    if scene.colour is not None:
        values = [point.record.metrics.get(scene.colour.metric, math.nan) for point in points]
        coloured = marker["line"] if role == "stopped" else marker
        coloured["color"], coloured["coloraxis"] = values, "coloraxis"
    bars = {}
    if points[0].finalist is not None:
        for axis, ends in (("x", [p.x_bar for p in points]), ("y", [p.y_bar for p in points])):
            bars[f"error_{axis}"] = {
                "type": "data",
                "symmetric": False,
                "array": [up for _, up in ends],
                "arrayminus": [down for down, _ in ends],
                "color": colour,
                "thickness": 1.5,
                "width": 4,
                "visible": any(up > 0 or down > 0 for down, up in ends),
            }
    return go.Scatter(
        x=[point.x for point in points],
        y=[point.y for point in points],
        mode="markers",
        marker=marker,
        opacity=OPACITIES[role],
        name=escape(category),
        legendgroup=category,
        showlegend=False,
        hovertemplate="%{customdata}<extra></extra>",
        customdata=[
            _hover(
                point.record,
                has_channels=role in ("front", "final") or len(scene.points) <= MAX_WITH_CHANNELS,
                finalist=point.finalist,
            )
            for point in points
        ],
        **bars,
    )


def _add_legend_(figure: go.Figure, scene: Scene) -> None:
    """Explain colours by category, then the symbols of roles and sources, with entries that hold no data."""

    def add(
        name: str, marker: dict[str, Any], group: str, opacity: float = 1.0, title: str | None = None
    ) -> None:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"size": 10, **marker},
            opacity=opacity,
            name=escape(name),
            legendgroup=group,
            legendgrouptitle={"text": title} if title else None,
        )

    if scene.colour is None:
        for place, (category, colour) in enumerate(scene.named_colours().items()):
            add(category, {"color": colour}, category, title=scene.category if place == 0 else None)
    else:
        low, high = scene.colour_limits()
        bar: dict[str, Any] = {
            "title": {"text": escape(label_of(scene.colour.metric)), "side": "top"},
            "orientation": "h",
        }
        bar |= {"y": -0.15, "yanchor": "top", "thickness": 14, "len": 0.6}
        scale = {"colorscale": "Viridis", "cmin": low, "cmax": high, "colorbar": bar}
        figure.update_layout(coloraxis=scale)
    sources = sorted({point.record.source for point in scene.points})
    for place, source in enumerate(sources):
        marker = {"symbol": SYMBOLS.get(source, "circle"), "color": "#777"}
        add(source, marker, "source", title="source" if place == 0 else None)
    circled = {"color": "#fff", "line": {"width": 1.5, "color": "#222"}}
    roles = {point.role for point in scene.points}
    if roles & {"final", "finalist"}:
        add("finalist: mean ± standard deviation", circled, "role", title="trial")
        add("on the front of the search", {"color": "#777", "size": 9}, "role", 0.35)
    else:
        add("on the front", circled, "role", title="trial")
    add("dominated", {"color": "#777", "size": 8}, "role", 0.35)
    if any(point.role == "stopped" for point in scene.points):
        add("stopped at a rung", {"symbol": "x-thin", "line": {"width": 1.5, "color": "#777"}}, "role", 0.6)


def _axis_layout(axis: Axis, scene: Scene) -> dict[str, Any]:
    layout: dict[str, Any] = {"title": {"text": escape(axis.label)}, "showline": True, "linecolor": "#999"}
    if axis.scale == "log":
        return {**layout, "type": "log", "dtick": "D2" if axis.metric else None, "tickformat": "~s"}
    if axis.scale == "log-error":
        shown = [point.record.metrics[str(axis.metric)] for point in scene.points]
        ticks = axis.ticks(shown)
        places = [math.log10(place) for place in scene.reach(axis)]
        pad = 0.06 * (max(places) - min(places)) + 0.02
        return {
            **layout,
            "type": "log",
            "range": [max(places) + pad, min(places) - pad],
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
        }
    return {**layout, "tickformat": ",d"} if axis.metric is None else layout


def _hover(record: TrialRecord, has_channels: bool, finalist: Finalist | None = None) -> str:
    """Return the text that a point shows: who it is, what it measures, which channels it keeps."""
    lines = [f"<b>trial {record.number}</b> · {escape(record.source)} · {escape(record.method)}"]
    if record.is_halted:
        verb = "paused" if record.is_paused else "stopped"
        lines.append(f"{verb} after {record.last_images:,} training images")
    spread: Mapping[str, float] = {}
    if finalist is not None:
        spread = finalist.spread
        lines.append(
            f"finalist, mean of {finalist.n_seeds} trainings; its network is that of {finalist.best}"
        )
    names = [n for n in record.metrics if n.startswith(("val_", "test_"))]
    names += [n for n in (*COST_METRICS, "latency_ms", "wall_time_s") if n in record.metrics]
    lines += [
        f"{escape(label_of(name))}: {format_with_spread(name, record.metrics[name], spread.get(name))}"
        for name in names
    ]
    if not has_channels:
        return "<br>".join(lines)
    lines.append("<b>channels kept</b>")
    kept = [f"{escape(group)}: {n}" for group, n in record.architecture.items()]
    per_line = 1 + len(kept) // 16  # the box of a network with hundreds of groups still fits on a screen
    lines += [", ".join(kept[start : start + per_line]) for start in range(0, len(kept), per_line)]
    return "<br>".join(lines)


def format_metric(name: str, value: float) -> str:
    """Return a metric for people: counts in full, anything else with five digits at most."""
    if name in COST_METRICS:
        return f"{value:,.0f}"
    return f"{value:.4f}" if name.endswith("accuracy") else f"{value:.5g}"


def format_with_spread(name: str, mean: float, spread: float | None, sign: str = "±") -> str:
    """Return a metric with its standard deviation where it has one that is not zero."""
    text = format_metric(name, mean)
    return f"{text} {sign} {format_metric(name, spread)}" if spread else text


def _summarise(records: Sequence[TrialRecord], finalists: Sequence[Finalist]) -> str:
    n_complete = sum(record.state == "COMPLETE" for record in records)
    n_stopped = sum(record.state == "PRUNED" for record in records)
    n_paused = sum(record.is_paused for record in records)
    n_failed = sum(record.state == "FAIL" for record in records)
    n_front = sum(record.is_front for record in records)
    where = "Pareto front of the search" if finalists else "Pareto front"
    parts = []
    if finalists:
        n_final = sum(finalist.record.is_front for finalist in finalists)
        parts.append(f"{n_final} of {len(finalists)} finalists on the final front, means over their seeds")
    parts += [
        f"{n_front} network{'' if n_front == 1 else 's'} on the {where}",
        f"{n_complete} finished trials",
        f"{n_stopped} stopped",
    ]
    parts += [f"{n} {what}" for n, what in ((n_paused, "paused"), (n_failed, "failed")) if n]
    return ", ".join(parts)


def _table_metrics(objectives: Sequence[Objective]) -> list[str]:
    metrics: list[str] = []
    for name in [objective.metric for objective in objectives]:
        metrics += [name, f"test_{name[4:]}"] if name.startswith("val_") else [name]
    return list(dict.fromkeys([*metrics, *COST_METRICS]))


def _columns(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[tuple[str, str]]:
    groups = next((", ".join(record.architecture) for record in records), "")
    architecture = f"channels kept ({groups})" if groups and len(groups) < 60 else "channels kept"
    metrics = [(label_of(name), "number") for name in _table_metrics(objectives)]
    return [("trial", "number"), ("source", "text"), *metrics, ("method", "text"), (architecture, "text")]


def _format_table(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    spreads: Mapping[int, Mapping[str, float]] | None = None,
) -> str:
    """Return networks as a table, with spreads by the number of the trial where there are any."""
    columns = _columns(records, objectives)
    return _TABLE.format(
        head="".join(f'<th class="{kind}">{escape(label)}</th>' for label, kind in columns),
        rows="\n".join(
            _row(record, objectives, (spreads or {}).get(record.number, {})) for record in records
        ),
    )


def _row(record: TrialRecord, objectives: Sequence[Objective], spread: Mapping[str, float]) -> str:
    cells = [f"<td>{record.number}</td>", f'<td class="text">{escape(record.source)}</td>']
    for name in _table_metrics(objectives):
        value = record.metrics.get(name)
        text = "" if value is None else format_with_spread(name, value, spread.get(name))
        cells.append(f"<td>{text}</td>")
    for text in (record.method, format_architecture(record)):
        cells.append(f'<td class="text">{escape(text)}</td>')
    return f"<tr>{''.join(cells)}</tr>"

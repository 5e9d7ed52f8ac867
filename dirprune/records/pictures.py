"""The study as pictures: the front, and the architectures on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dirprune.records.appearance import label_of
from dirprune.records.figures import as_literal, dress_axis_, make_axes, save_figure
from dirprune.records.finalists import Finalist
from dirprune.records.formatting import format_metric
from dirprune.records.front import sort_front
from dirprune.records.record import TrialRecord
from dirprune.records.scene import Point, Scene, make_scene
from dirprune.study.objectives import Objective

SYMBOLS = {"dense": "*", "uniform": "s", "reference": "D", "warm-start": "^"}
SIZES = {"front": 64.0, "dominated": 26.0, "stopped": 22.0, "searched": 30.0, "finalist": 36.0, "final": 64.0}
OPACITIES = {"front": 1.0, "dominated": 0.3, "stopped": 0.45, "searched": 0.35, "finalist": 0.6, "final": 1.0}
LINE, FADED_LINE = "#444444", "#CCCCCC"
MAX_ROWS = 60


def write_front_png(
    path: Path,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    title: str = "Pareto front",
    finalists: Sequence[Finalist] = (),
) -> None:
    """Write the front as a picture: first objective against the second, finalists before the search.

    Args:
        path: File to write.
        records: Every trial, with `is_front` set.
        objectives: The study's objectives, at least one.
        title: Shown as text.
        finalists: By macs, the final front marked.
    """
    scene = make_scene(records, objectives, finalists)
    figure, axes = make_axes(9.0, 5.6)
    style = "steps-post" if scene.is_held else "steps-pre"
    for line, colour in ((scene.searched_line, FADED_LINE), (scene.line, LINE)):
        if line:
            axes.plot(*zip(*line, strict=True), drawstyle=style, color=colour, linewidth=1.2, zorder=2)
    alike: dict[tuple[str, ...], list[Point]] = {}
    for point in scene.points:
        alike.setdefault((point.role, point.record.source, scene.category_of(point.record)), []).append(point)
    for points in alike.values():
        _draw_points_(axes, scene, points)
    dress_axis_(axes.xaxis, axes, "x", scene.across, scene)
    dress_axis_(axes.yaxis, axes, "y", scene.up, scene)
    axes.set_title(as_literal(title), loc="left", fontsize=11, fontweight="bold")
    if scene.colour is not None:
        _add_colour_scale_(figure, axes, scene)
    axes.legend(
        handles=_legend(scene), loc="upper left", bbox_to_anchor=(1.0, 1.02), frameon=False, fontsize=8.5
    )
    save_figure(figure, path)


def write_architectures_png(
    path: Path, records: Sequence[TrialRecord], n_channels: Mapping[str, int], title: str = "Architectures"
) -> None:
    """Write what each network of the front keeps: a row per network, a column per channel group.

    Of a front of more than `MAX_ROWS` networks so many are shown, evenly from its smallest to its largest.

    Args:
        path: File to write.
        records: Every trial, with `is_front` set.
        n_channels: Channels of each group before pruning, in forward order.
        title: Shown as text.
    """
    front = sort_front(records)
    if len(front) > MAX_ROWS:
        title = f"{title} ({MAX_ROWS} of {len(front)})"
        front = [front[place] for place in np.linspace(0, len(front) - 1, MAX_ROWS).round().astype(int)]
    many = len(n_channels) > 24  # thin columns without counts
    width = min(4.0 + (0.28 if many else 0.85) * len(n_channels), 24.0)
    figure, axes = make_axes(width, 1.6 + 0.32 * max(len(front), 3))
    axes.grid(False)
    if front:
        _draw_kept_(figure, axes, front, n_channels, has_counts=not many)
    else:
        axes.text(0.5, 0.5, "no finished trial yet", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
    axes.set_title(as_literal(title), loc="left", fontsize=11, fontweight="bold")
    save_figure(figure, path)


def _draw_kept_(
    figure: Figure,
    axes: Axes,
    front: Sequence[TrialRecord],
    n_channels: Mapping[str, int],
    has_counts: bool,
) -> None:
    kept = np.array([[record.architecture[group] for group in n_channels] for record in front])
    ratios = kept / np.array(list(n_channels.values()))
    image = axes.imshow(ratios, vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto")
    if has_counts:
        for (row, column), ratio in np.ndenumerate(ratios):
            colour = "black" if ratio > 0.6 else "white"
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8.5}
            axes.text(column, row, str(kept[row, column]), color=colour, **style)
    labels = [f"{group}\n({n})" if has_counts else group for group, n in n_channels.items()]
    axes.set_xticks(range(len(labels)), [as_literal(label) for label in labels], fontsize=8.5)
    if not has_counts:
        axes.tick_params(axis="x", rotation=90)
    axes.set_yticks(range(len(front)), [as_literal(_row_label(record)) for record in front], fontsize=8.5)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="keep ratio", pad=0.02, fraction=0.05)


def _row_label(record: TrialRecord) -> str:
    parts = [f"trial {record.number}"]
    if "val_accuracy" in record.metrics:
        parts.append(format_metric("val_accuracy", record.metrics["val_accuracy"]))
    if "macs" in record.metrics:
        parts.append(f"{format_metric('macs', record.metrics['macs'])} MACs")
    return "  ".join(parts)


def _draw_points_(axes: Axes, scene: Scene, points: Sequence[Point]) -> None:
    """Draw points of one role, source and category: one by one, thousands would take minutes."""
    role, record = points[0].role, points[0].record
    is_stopped = role == "stopped"
    colour: Any = scene.colours[scene.category_of(record)]
    if scene.colour is not None:
        colour = [_colour_of(scene, point) for point in points]
    edge: dict[str, Any] = {} if is_stopped else {"edgecolors": "#222222"}  # a cross has no edge
    axes.scatter(
        [point.x for point in points],
        [point.y for point in points],
        s=SIZES[role] * (2.2 if record.source == "dense" and not is_stopped else 1.0),
        marker="x" if is_stopped else SYMBOLS.get(record.source, "o"),
        color=colour,
        alpha=OPACITIES[role],
        linewidths=1.0 if is_stopped or role in ("front", "final", "finalist") else 0.0,
        **edge,
        zorder=4 if role in ("front", "final", "finalist") else 3,
    )
    if any(point.finalist is not None for point in points):
        axes.errorbar(
            [point.x for point in points],
            [point.y for point in points],
            xerr=list(zip(*(point.x_bar for point in points), strict=True)),
            yerr=list(zip(*(point.y_bar for point in points), strict=True)),
            fmt="none",
            ecolor=LINE,
            elinewidth=1.2,
            capsize=3.0,
            alpha=OPACITIES[role],
            zorder=3.5,
        )


def _colour_of(scene: Scene, point: Point) -> Any:
    assert scene.colour is not None
    low, high = scene.colour_limits()
    value = point.record.metrics.get(scene.colour.metric, math.nan)
    return colormaps["viridis"]((value - low) / (high - low) if high > low else 0.5)


def _add_colour_scale_(figure: Figure, axes: Axes, scene: Scene) -> None:
    assert scene.colour is not None
    mappable = ScalarMappable(Normalize(*scene.colour_limits()), "viridis")
    figure.colorbar(
        mappable, ax=axes, location="bottom", label=as_literal(label_of(scene.colour.metric)), shrink=0.6
    )


def _legend(scene: Scene) -> list[Line2D]:
    def entry(label: str, marker: str, colour: str, **style: Any) -> Line2D:
        return Line2D([], [], linestyle="none", marker=marker, color=colour, label=as_literal(label), **style)

    def heading(label: str) -> Line2D:
        return Line2D([], [], linestyle="none", label=f"\n{label}")

    handles = []
    if scene.colour is None:
        handles.append(heading(scene.category))
        for name, colour in scene.named_colours().items():
            handles.append(entry(name, "o", colour, markeredgecolor="#222222"))
    if scene.category == "method" or scene.colour is not None:
        handles.append(heading("source"))
        for source in sorted({point.record.source for point in scene.points}):
            size = 10 if source == "dense" else 6
            handles.append(entry(source, SYMBOLS.get(source, "o"), "#888888", markersize=size))
    handles.append(heading("trial"))
    if scene.line:
        final = "final " if scene.searched_line else ""
        name = f"on the {final}front" if scene.across.metric else "best so far"
        handles.append(Line2D([], [], color=LINE, linewidth=1.2, label=name))
    if scene.searched_line:
        handles.append(Line2D([], [], color=FADED_LINE, linewidth=1.2, label="front of the search"))
    if any(point.finalist is not None for point in scene.points):
        handles.append(entry("finalist: mean ± std", "o", "#FFFFFF", markeredgecolor="#222222"))
    if any(point.role == "dominated" for point in scene.points):
        handles.append(entry("dominated", "o", "#888888", alpha=0.35, markersize=5, markeredgewidth=0))
    if any(point.role == "stopped" for point in scene.points):
        handles.append(entry("stopped at a rung", "x", "#888888", markersize=5))
    return handles

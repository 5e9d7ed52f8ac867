"""What all pictures of studies have in common: a figure of its own, its axes, and its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedFormatter, FixedLocator, LogLocator, NullFormatter

from dirprune.cost import COST_METRICS
from dirprune.files import write_atomically
from dirprune.records.scene import Axis, Scene

DOTS_PER_INCH = 150


def make_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of its own, outside the state that pyplot keeps per process."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(True, color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def dress_axis_(target: Any, axes: Axes, side: str, axis: Axis, scene: Scene) -> None:
    """Give an axis its title, its scale and its marks."""
    target.set_label_text(as_literal(axis.label))
    if axis.scale == "linear":
        if axis.metric in COST_METRICS:
            target.set_major_formatter(EngFormatter(sep=""))
        return
    getattr(axes, f"set_{side}scale")("log")
    if axis.scale == "log":
        target.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        target.set_major_formatter(EngFormatter(sep=""))
        target.set_minor_formatter(NullFormatter())
        return
    shown = [point.record.metrics[str(axis.metric)] for point in scene.points]
    ticks = axis.ticks(shown)
    target.set_major_locator(FixedLocator(list(ticks)))
    target.set_major_formatter(FixedFormatter(list(ticks.values())))
    target.set_minor_locator(FixedLocator([]))
    target.set_inverted(True)


def as_literal(text: str) -> str:
    """Return `text` so that matplotlib does not read dollar signs in it as mathematics."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")

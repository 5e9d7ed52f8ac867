"""A picture of scores: bars for each channel group, channels by falling score of the first method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from dirprune.files import write_atomically

DOTS_PER_INCH = 140
N_COLUMNS = 2
N_LABELLED = 30  # channels whose numbers fit below their bars


def write_scores_png(
    path: Path, scores: Mapping[str, Mapping[str, Tensor]], half_widths: Mapping[str, Tensor] | None = None
) -> None:
    """Write a panel for each group with the scores of every method.

    The first method's scores are bars in their own unit, with their 95% intervals where known. Those of
    further methods are lines with dots, moved and scaled to the same range: only their order can be compared.

    Args:
        path: File to write.
        scores: For each method, for each group a tensor of shape (n_channels,); higher means keep.
        half_widths: Of the first method's intervals, likewise, for some groups.
    """
    first, *others = scores
    groups = list(scores[first])
    n_rows = -(-len(groups) // N_COLUMNS)
    figure = Figure(figsize=(13.0, 0.6 + 2.7 * n_rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(n_rows, N_COLUMNS, squeeze=False).flatten()
    colours = colormaps["tab10"]
    for axes, name in zip(panels, groups, strict=False):
        values = scores[first][name].double().numpy()
        order = np.argsort(-values, kind="stable")
        places = np.arange(len(order))
        errors = half_widths.get(name) if half_widths else None
        axes.bar(
            places,
            values[order],
            color=colours(0),
            alpha=0.75,
            label=first,
            yerr=None if errors is None else errors.double().numpy()[order],
            error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        )
        for number, method in enumerate(others, 1):
            other = _rescale(scores[method][name].double().numpy(), values)
            axes.plot(places, other[order], ".-", color=colours(number), linewidth=0.8, label=method)
        axes.set_title(f"{name}: {len(order)} channels", loc="left", fontsize=9.5)
        if len(order) <= N_LABELLED:
            axes.set_xticks(places, [str(channel) for channel in order], fontsize=7)
            axes.set_xlabel("channel", fontsize=8)
        else:
            axes.set_xlabel(f"place in the order of {first}", fontsize=8)
        axes.tick_params(axis="y", labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes in panels[len(groups) :]:
        axes.set_axis_off()
    panels[0].legend(frameon=False, fontsize=8)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")


def _rescale(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return values moved and scaled to the range of others; all equal ones to its middle."""
    spread = np.ptp(values)
    if spread == 0:
        return np.full_like(values, (like.min() + like.max()) / 2)
    return like.min() + (values - values.min()) / spread * np.ptp(like)

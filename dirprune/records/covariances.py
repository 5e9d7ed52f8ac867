"""Pictures of which channels go together: covariances, their excess over a Dirichlet, and what seeds say."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist
from torch import Tensor

from dirprune.files import write_atomically
from dirprune.importance.simplex.covariances import Agreement, GroupCovariances, Pair

DOTS_PER_INCH = 150
N_PAIRS = 6
MIN_LIMIT = 0.01
SEED_COLOURS = "tab10"
MIN_CLUSTERED = 3
MAX_CAPTION = 200  # characters of a line below the pictures
N_LABELLED = 40  # channels whose numbers fit beside a heat map

SEED, PART = "seed", "image part"
"""What one posterior of several was fitted with."""


def write_covariances_png(
    path: Path,
    covariances: GroupCovariances,
    seeds: Sequence[int],
    title: str,
    fit: str = SEED,
    n_pairs: int = N_PAIRS,
) -> None:
    """Write one group's pairs: two heat maps with shared colours, and the strongest pairs seed by seed.

    The heat maps show correlations and the excess of the covariances over the Dirichlet with the same means
    and trace, divided by the two standard deviations, both averaged over seeds. Red is positive, blue
    negative, white zero; the diagonal, which would outshine everything, is grey. Channels whose excess is
    alike stand side by side, in the order of a hierarchical clustering with average linkage.

    Args:
        path: File to write.
        covariances: Of one group, with one entry per seed.
        seeds: The seeds, in the same order.
        title: Shown as text.
        fit: What one entry was fitted with: `SEED` or `PART`.
        n_pairs: Strongest pairs of either sign to show.
    """
    relative = covariances.relative(covariances.covariances)
    excess = covariances.relative(covariances.excess())
    figure = Figure(figsize=(15.0, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    limit = choose_limit([relative.mean(0), excess.mean(0)])
    order = order_by_similarity(excess.mean(0))
    _draw_heat_map_(left, relative.mean(0), order, limit, "correlation")
    image = _draw_heat_map_(
        middle, excess.mean(0), order, limit, "correlation beyond the Dirichlet's (excess)"
    )
    figure.colorbar(image, ax=[left, middle], shrink=0.8, pad=0.02)
    above, below = covariances.pairs(n_pairs)
    _draw_pairs_(right, [*above, *below[::-1]], excess, seeds, fit)
    figure.suptitle(_literal(title), x=0.01, ha="left", fontsize=11, fontweight="bold")
    caption = wrap_caption(format_agreement(covariances.agreement(), fit))
    figure.supxlabel(_literal(caption), x=0.01, ha="left", fontsize=8.5)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")


def wrap_caption(text: str) -> str:
    """Return a text in lines that the picture has room for."""
    return textwrap.fill(text, MAX_CAPTION, break_on_hyphens=False)


def choose_limit(matrices: Sequence[Tensor]) -> float:
    """Return the largest absolute value off the diagonals, at least `MIN_LIMIT`: both ends of the colours."""
    off_diagonal = [(matrix - matrix.diagonal().diag()).abs().max() for matrix in matrices]
    return max(MIN_LIMIT, *(float(largest) for largest in off_diagonal))


def format_agreement(agreement: Agreement, fit: str = SEED) -> str:
    """Return in one line how far seeds, or parts of the images, agree about the pairs of a group.

    Beside each figure stands what the null gives, as its mean and range over the draws.
    """
    counts = ", ".join(map(str, agreement.n_positive))
    parts = [f"{agreement.n_pairs:,} pairs; positive by {fit}: {counts}"]
    if len(agreement.n_positive) == 1:
        return "; ".join([*parts, f"one {fit} confirms nothing"])
    null = agreement.null
    confirmed = "" if null is None else _format_null(null.n_confirmed, "{:.1f}", "{:.0f}")
    parts.append(f"positive in every {fit}: {agreement.n_confirmed}{confirmed}")
    known = "none" if agreement.spearman is None else f"{agreement.spearman:.2f}"
    drawn = [] if null is None else [value for value in null.spearman if value is not None]
    beside = _format_null(drawn, "{:.2f}", "{:.2f}") if drawn else ""
    parts.append(f"mean rank correlation of the excess from one {fit} to another: {known}{beside}")
    if agreement.spearman is not None:
        parts += _judge(agreement.spearman, drawn) if null is None or drawn else []
    return "; ".join(parts)


def _format_null(values: Sequence[float], mean: str, single: str) -> str:
    """Return the mean and range of a figure over the draws of the null, in brackets."""
    low, high = single.format(min(values)), single.format(max(values))
    middle = mean.format(sum(values) / len(values))
    draws = "1 draw" if len(values) == 1 else f"{len(values)} draws"
    return f" (without interactions {middle}, {low} to {high} in {draws})"


def _judge(spearman: float, drawn: Sequence[float]) -> list[str]:
    """Return what a rank correlation proves beside those of the null, as at most one remark."""
    if not drawn:
        return ["without interactions not drawn, so it proves none"]
    if spearman <= max(drawn):
        return ["no more than without interactions, so it proves none"]
    return []


def order_by_similarity(matrix: Tensor) -> list[int]:
    """Return channels so that those with similar rows are neighbours.

    Args:
        matrix: Symmetric, shape (n_channels, n_channels).
    """
    if len(matrix) < MIN_CLUSTERED:
        return list(range(len(matrix)))
    rows = (matrix - matrix.diagonal().diag()).double().numpy()
    return [int(channel) for channel in leaves_list(linkage(pdist(rows), "average", optimal_ordering=True))]


def _draw_heat_map_(axes: Axes, matrix: Tensor, order: Sequence[int], limit: float, title: str) -> Any:
    values = np.ma.masked_array(matrix.numpy()[np.ix_(order, order)], np.eye(len(matrix), dtype=bool))
    colours = colormaps["RdBu_r"].with_extremes(bad="#BBBBBB")
    image = axes.imshow(values, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_title(title, loc="left", fontsize=9.5)
    axes.set_xlabel("channel", fontsize=8.5)
    axes.set_ylabel("channel", fontsize=8.5)
    if len(order) <= N_LABELLED:
        labels = [str(channel) for channel in order]
        axes.set_xticks(range(len(order)), labels, rotation=90)
        axes.set_yticks(range(len(order)), labels)
        axes.tick_params(labelsize=7)
    else:  # the list of pairs beside it names the channels that stand out
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{len(order)} channels, similar ones side by side", fontsize=8.5)
    return image


def _draw_pairs_(axes: Axes, pairs: Sequence[Pair], excess: Tensor, seeds: Sequence[int], fit: str) -> None:
    """Draw a row per pair and in it a dot per seed: pairs that seeds agree about lie on one side of zero."""
    axes.set_title(f"excess of the strongest pairs, a dot per {fit}", loc="left", fontsize=9.5)
    if not pairs:
        axes.text(0.5, 0.5, "no pair differs from the Dirichlet", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    colours = colormaps[SEED_COLOURS]
    for number, seed in enumerate(seeds):
        values = [float(excess[number, pair.channels[0], pair.channels[1]]) for pair in pairs]
        style: dict[str, Any] = {"s": 22, "alpha": 0.85, "zorder": 3}
        axes.scatter(values, range(len(pairs)), color=colours(number % 10), label=f"{fit} {seed}", **style)
    labels = [f"{pair.channels[0]}, {pair.channels[1]}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0.0, color="#444444", linewidth=0.8)
    axes.grid(True, axis="x", color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")


def _literal(text: str) -> str:
    """Return `text` so that matplotlib does not read dollar signs in it as mathematics."""
    return text.replace("$", r"\$")

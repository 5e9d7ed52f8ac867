"""What searches found for their cost: a table for each number of workers, and curves with their spread."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click
import numpy as np
from importance_common import Rows
from importance_report import format_markdown, pick, unique
from matplotlib.figure import Figure
from numpy.typing import NDArray

Row = dict[str, Any]
TARGET = "tpe"
"""The side whose last hypervolume the others are to reach."""


@click.command
@click.option("--table", default="lenet5", help="As for run.")
@click.option("--seeds", default="0:1000", help="From the first to before the last.")
@click.option("--sides", default="", help="Between semicolons; default: all.")
@click.option("--workers", default=0, help="Default: all.")
@click.option("--plot", default="search", help="Name of the picture.")
@click.pass_obj
def report(output: Path, table: str, seeds: str, sides: str, workers: int, plot: str) -> None:
    """Print the tables of the rows that there are, and draw the curves."""
    first, last = (int(part) for part in seeds.split(":"))
    rows = [row for row in open_rows(output).select(table=table) if first <= row["seed"] < last]
    wanted = [" ".join(text.split()) for text in sides.split(";") if text.strip()]
    for n_workers, budget in sorted({(row["workers"], row["budget"]) for row in rows}):
        if workers and n_workers != workers:
            continue
        found = pick(rows, workers=n_workers, budget=budget)
        names = wanted or unique(found, "side")
        click.echo(f"{n_workers} workers, a budget of {budget:,} images\n\n{tabulate(found, names)}\n")
        draw(found, names, output / f"{plot}-{n_workers}.png")


def open_rows(output: Path) -> Rows:
    """Return the searches that were run; the oldest rows do not say their table."""
    return Rows(output / "search.jsonl", {"table": "lenet5"})


def tabulate(rows: list[Row], sides: list[str]) -> str:
    """Return a line for each side: what it needed to reach what plain TPE has at its end, and its end."""
    budget = rows[0]["budget"]
    target = compute_target(rows)
    lines = []
    for side in sides:
        found = pick(rows, side=side)
        if not found:
            continue
        cells = [side, str(len(found))]
        if target is not None:
            reached = [compute_first(row, target) for row in found]
            ratios = [budget / cost for cost in reached]
            cells.append(f"{sum(map(np.isfinite, reached))}")
            cells.append(_format_quartiles([cost / 1000 for cost in reached], 0))
            cells.append(_format_quartiles(ratios, 1))
            trained = [compute_first(row, target, column=1) for row in found]
            cells.append(_format_quartiles([cost / 1000 for cost in trained], 0))
        cells += [
            _format_quartiles([100 * (1 - row["points"][-1][column]) for row in found], 2)
            for column in (2, 3)
        ]
        cells += [
            _mean([row["counts"].get("started", 0) for row in found]),
            _mean([row["counts"].get("reached 3", 0) for row in found]),
            _mean([row["n_architectures"] for row in found]),
            f"{statistics.fmean(row['seconds'] for row in found):.1f}",
        ]
        lines.append(cells)
    header = ["side", "seeds"]
    if target is not None:
        header += ["reached", "thousand images to plain TPE's end", "times fewer than its budget"]
        header += ["of them trained on"]
    header += ["regret at the end, %", "as it sees it, %", "trials", "full", "architectures", "seconds"]
    return format_markdown(header, lines)


def compute_target(rows: list[Row]) -> float | None:
    """Return the median hypervolume that plain TPE has at its end; None if it did not run."""
    ends = [row["points"][-1][2] for row in pick(rows, side=TARGET)]
    return statistics.median(ends) if ends else None


def compute_first(row: Row, target: float, column: int = 0) -> float:
    """Return the cost at which a search first has a hypervolume; infinite if it never has.

    Args:
        row: A search.
        target: The hypervolume.
        column: 0: all images, 1: those trained on.
    """
    return next((point[column] for point in row["points"] if point[2] >= target), np.inf)


def compute_regret(row: Row, costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the grid's hypervolume that a search lacks at each cost, shape (n_costs,)."""
    points = np.array(row["points"])
    places = np.searchsorted(points[:, 0], costs, side="right")
    return 1 - np.concatenate([[0.0], points[:, 2]])[places]


def draw(rows: list[Row], sides: list[str], path: Path) -> None:
    """Draw each side's median regret by cost, and the range of the middle half of its seeds."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    budget = rows[0]["budget"]
    costs = np.geomspace(budget / 100, budget, 300)
    for side in sides:
        regrets = np.array([compute_regret(row, costs) for row in pick(rows, side=side)])
        if len(regrets) == 0:
            continue
        low, median, high = np.quantile(regrets, (0.25, 0.5, 0.75), axis=0)
        (line,) = axes.plot(costs, 100 * median, label=side, lw=1.6)
        axes.fill_between(costs, 100 * low, 100 * high, color=line.get_color(), alpha=0.15, lw=0)
    if (target := compute_target(rows)) is not None:
        axes.axhline(100 * (1 - target), color="black", lw=0.8, ls=":")
    axes.set(xscale="log", yscale="log", xlabel="images (trained, and a third of those judged)")
    axes.set_ylabel("hypervolume that is missing, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def _format_quartiles(values: list[float], digits: int) -> str:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75), method="inverted_cdf")
    texts = ["never" if np.isinf(v) else f"{v:,.{digits}f}" for v in (median, low, high)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def _mean(values: list[int]) -> str:
    return f"{statistics.fmean(values):.0f}"

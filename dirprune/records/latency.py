"""How long the networks of a front take: a table of measurements, and MACs against latency as a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dirprune.files import write_atomically
from dirprune.latency import Latency
from dirprune.pareto import interval_front_mask, surely_dominates, to_losses
from dirprune.records.appearance import COLOURS, DENSE_COLOUR
from dirprune.records.folder import StudyFolder
from dirprune.records.tables import MEASURED_ON
from dirprune.study.latency import describe_setting
from dirprune.study.objectives import Objective

DOTS_PER_INCH = 150
MEASURED = {
    "measured_ms": "latency_ms",
    "measured_low_ms": "low_ms",
    "measured_high_ms": "high_ms",
    "measured_speed_up": "speed_up",
}
"""Columns of the fronts' tables with what was measured, and those of `latency.csv` that they repeat."""
SETTING = ("device", "processor", "threads", "batch_size", "precision", "torch")
"""Columns of `latency.csv` with what was measured where, the same in each row."""
SEARCH, FINAL = "search", "final"


def name_columns(objectives: Sequence[Objective]) -> list[str]:
    """Return the columns of `latency.csv` before `SETTING`, given what is traded against latency."""
    metrics = [objective.metric for objective in objectives]
    times = ["latency_ms", "low_ms", "high_ms", "speed_up", "beaten_by"]
    return ["trial", "front", *metrics, "macs", "parameters", *times]


@dataclass(frozen=True)
class Timed:
    """A network and how long it takes.

    Attributes:
        trial: Its trial; None: the dense network.
        metrics: What is known of it, macs among it.
        latency: As measured.
        front: `SEARCH` or `FINAL`, whichever front the metrics are of: they are compared within one only. A
            trial on both is there twice.
    """

    trial: int | None
    metrics: dict[str, float]
    latency: Latency
    front: str = SEARCH


def find_beaten(networks: Sequence[Timed], objectives: Sequence[Objective]) -> dict[int, int]:
    """Return which trials are not on the front of the objectives and measured latency, and what beats them.

    Latencies whose quartiles overlap are equal; see `dirprune.pareto.interval_front_mask`.

    Args:
        networks: Those without a trial, or without a metric among the objectives, do not compete.
        objectives: What is traded against latency.
    """
    metrics = [objective.metric for objective in objectives]
    rated = [n for n in networks if n.trial is not None and all(metric in n.metrics for metric in metrics)]
    if not rated or not objectives:
        return {}
    values = to_losses([[n.metrics[m] for m in metrics] for n in rated], [o.direction for o in objectives])
    low = np.column_stack([values, [n.latency.low_ms for n in rated]])
    high = np.column_stack([values, [n.latency.high_ms for n in rated]])
    is_front = interval_front_mask(low, high)
    fastest = sorted(np.flatnonzero(is_front).tolist(), key=lambda place: rated[place].latency.median_ms)
    beaten = {}
    for place in np.flatnonzero(~is_front).tolist():
        winner = next(member for member in fastest if surely_dominates(low, high, member)[place])
        trial, other = rated[place].trial, rated[winner].trial
        assert trial is not None
        assert other is not None
        beaten[trial] = other
    return beaten


def tabulate(networks: Sequence[Timed], objectives: Sequence[Objective]) -> list[list[str]]:
    """Return a row of text for each network, in the order of `name_columns`; the dense one is the first."""
    beaten = {
        front: find_beaten([network for network in networks if network.front == front], objectives)
        for front in (SEARCH, FINAL)
    }
    dense = networks[0].latency
    rows = []
    for network in networks:
        latency, metrics = network.latency, network.metrics
        judged = [metrics.get(objective.metric) for objective in objectives]
        rows.append(
            [
                "dense" if network.trial is None else str(network.trial),
                "" if network.trial is None else network.front,
                *("" if value is None else f"{value:.4f}" for value in judged),
                f"{metrics['macs']:.0f}",
                f"{metrics['parameters']:.0f}",
                *(f"{value:.4g}" for value in (latency.median_ms, latency.low_ms, latency.high_ms)),
                f"{dense.median_ms / latency.median_ms:.2f}",
                "" if network.trial is None else str(beaten[network.front].get(network.trial, "")),
            ]
        )
    return rows


def write_latency_csv(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], setting: Mapping[str, str | int]
) -> None:
    """Write what `tabulate` gave, and behind it the setting; see `dirprune.latency.describe_setting`."""
    where = [str(setting[name]) for name in SETTING]
    write_table(path, [*columns, *SETTING], [[*row, *where] for row in rows])


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write rows of text under their columns."""
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def add_measured(folder: StudyFolder) -> None:
    """Give the tables of fronts and finalists `MEASURED` and `MEASURED_ON`, where `latency.csv` is there.

    A study's own `latency_ms` is modelled from its architecture; these were read from a clock.
    """
    if not folder.latency_csv.exists():
        return
    _, timed = _read_table(folder.latency_csv)
    known = {row["trial"]: row for row in timed}
    for path in (folder.front_csv, folder.final_front_csv, folder.finalists_csv):
        if path.exists():
            _add_columns(path, known)


def _add_columns(path: Path, known: Mapping[str, Mapping[str, str]]) -> None:
    columns, rows = _read_table(path)
    added = [*MEASURED, MEASURED_ON]
    columns = [*(column for column in columns if column not in added), *added]
    for row in rows:
        timed = known.get(row["trial"], {})
        row |= {name: timed.get(column, "") for name, column in MEASURED.items()}
        is_told = all(name in timed for name in SETTING)  # earlier versions did not tell
        row[MEASURED_ON] = describe_setting(timed) if is_told else ""
    write_table(path, columns, [[row[column] for column in columns] for row in rows])


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        return list(table.fieldnames or ()), list(table)


def write_latency_png(path: Path, networks: Sequence[Timed], title: str) -> None:
    """Draw MACs against latency; the line from nothing to the dense network is what MACs alone would promise.

    Args:
        path: File to write.
        networks: The dense one among them.
        title: What was measured where.
    """
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    dense = next(network for network in networks if network.trial is None)
    axes.plot(
        [0, dense.metrics["macs"]],
        [0, dense.latency.median_ms],
        color="0.7",
        linestyle="--",
        linewidth=1,
        label="in proportion to MACs",
    )
    for network in {network.trial: network for network in networks}.values():
        latency = network.latency
        is_dense = network.trial is None
        axes.errorbar(
            network.metrics["macs"],
            latency.median_ms,
            [[latency.median_ms - latency.low_ms], [latency.high_ms - latency.median_ms]],
            fmt="s" if is_dense else "o",
            color=DENSE_COLOUR if is_dense else COLOURS[0],
            capsize=2,
            label="dense" if is_dense else None,
        )
        if not is_dense:
            place = (network.metrics["macs"], latency.median_ms)
            axes.annotate(str(network.trial), place, (4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel="MACs", ylabel="latency, ms (median and quartiles)", xlim=(0, None), ylim=(0, None))
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")

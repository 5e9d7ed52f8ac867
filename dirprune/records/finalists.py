"""A study's finalists: members of the front that were trained again in full, in several seeds."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dirprune.files import write_atomically
from dirprune.pareto import hypervolume_contributions, to_losses
from dirprune.records.front import mark_front
from dirprune.records.record import TrialRecord
from dirprune.records.tables import format_architecture
from dirprune.study.objectives import Objective


@dataclass(frozen=True)
class Finalist:
    """One architecture and what its trainings gave.

    Attributes:
        record: Its trial, with the metrics replaced by their means over the seeds.
        spread: Standard deviation over the seeds (n - 1) of each metric; empty for a single seed.
        n_seeds: Trainings that finished, >= 1.
    """

    record: TrialRecord
    spread: Mapping[str, float]
    n_seeds: int


def choose_finalists(
    front: Sequence[TrialRecord],
    n_finalists: int,
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    scale: Mapping[str, float],
) -> list[TrialRecord]:
    """Choose members of a front: the one that adds least to the hypervolume goes until few enough are left.

    The dense network is none of them: nothing of it was pruned.

    Args:
        front: Trials on the front.
        n_finalists: Members to choose at most; >= 1.
        objectives: What the study trades.
        reference_point: Worst acceptable value per objective metric.
        scale: What an objective is divided by: the dense network's costs; 1 where it is not here.

    Returns:
        The chosen trials, in the order of `front`.
    """
    chosen = [record for record in front if record.source != "dense"]
    metrics = [objective.metric for objective in objectives]
    directions = [objective.direction for objective in objectives]
    divisor = np.array([float(scale.get(metric, 1.0)) for metric in metrics])
    corner = np.array([[reference_point[metric] for metric in metrics]]) / divisor
    while len(chosen) > n_finalists:
        values = np.array([[record.metrics[metric] for metric in metrics] for record in chosen]) / divisor
        gains = hypervolume_contributions(to_losses(values, directions), to_losses(corner, directions)[0])
        least = min(range(len(chosen)), key=lambda place: (gains[place], -chosen[place].number))
        del chosen[least]
    return chosen


def summarise_finalists(
    trainings: Sequence[tuple[TrialRecord, Sequence[Mapping[str, float]]]], objectives: Sequence[Objective]
) -> list[Finalist]:
    """Return mean and spread of each finalist, and which are on the front of the means.

    Args:
        trainings: Each finalist's trial and the metrics of each of its finished trainings.
        objectives: What the study trades; validation decides, the test split is only reported.

    Returns:
        Finalists with at least one finished training, by macs; `record.is_front` is of the final front.
    """
    finalists = []
    for record, results in trainings:
        if results:
            names = sorted(set.intersection(*(set(result) for result in results)))
            values = {name: np.array([result[name] for result in results]) for name in names}
            means = {name: float(column.mean()) for name, column in values.items()}
            spread = {name: float(column.std(ddof=1)) for name, column in values.items() if len(column) > 1}
            finalists.append(Finalist(replace(record, metrics=means), spread, len(results)))
    marked = mark_front([finalist.record for finalist in finalists], objectives)
    final = [replace(finalist, record=record) for finalist, record in zip(finalists, marked, strict=True)]
    return sorted(final, key=lambda finalist: (finalist.record.metrics["macs"], finalist.record.number))


def write_finalists(path: Path, finalists: Sequence[Finalist]) -> None:
    """Write the finalists by macs: each metric's mean by its name, its spread by `<name>_std`.

    Columns before them: trial, source, is_front (1 on the final front), n_seeds, method, architecture.
    """
    metrics = sorted({name for finalist in finalists for name in finalist.record.metrics})
    columns = [column for name in metrics for column in (name, f"{name}_std")]
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(
            file, ["trial", "source", "is_front", "n_seeds", "method", "architecture", *columns], restval=""
        )
        table.writeheader()
        for finalist in finalists:
            record = finalist.record
            facts = {
                "trial": record.number,
                "source": record.source,
                "is_front": int(record.is_front),
                "n_seeds": finalist.n_seeds,
                "method": record.method,
                "architecture": format_architecture(record),
            }
            spread = {f"{name}_std": value for name, value in finalist.spread.items()}
            table.writerow({**facts, **record.metrics, **spread})

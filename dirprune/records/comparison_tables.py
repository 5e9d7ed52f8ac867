"""A comparison of studies as a file: a CSV with a row per group and budget, or a JSON with each study, too.

| column of the CSV | meaning |
|---|---|
| group | what its studies have in common: importance methods, or the study's name |
| studies, finished, stopped, failed | how many studies, and how many of their trials, by how they ended |
| images | training images that those trials saw; empty where it is not known |
| hypervolume, hypervolume_std | mean and standard deviation (n - 1) over the studies |
| hypervolume_low, hypervolume_high | 95% interval of the mean by a modelled latency; only with one |
| reference_x | where the hypervolume begins, for each objective x |
| budget, limit | the limit of cost as a share of the dense network's, and in its own unit |
| found | how many studies have a network within it |
| val_x, test_x, the cost, each with _std | of the network that validation chose, if it is finite in all |

The JSON has the same by group, and in it for each study its seed, folder, hypervolume and chosen networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dirprune.files import write_json
from dirprune.records.comparison import Comparison, Group, Spread, StudyResult, find_known
from dirprune.records.latency import write_table
from dirprune.records.record import TrialRecord
from dirprune.records.tables import format_architecture

SCHEMA = 1
STATES = {"finished": ("COMPLETE",), "stopped": ("PRUNED",), "failed": ("FAIL",)}
"""How trials end, by what people call it."""


def write_comparison(path: Path, comparison: Comparison, warnings: Sequence[str] = ()) -> None:
    """Write a comparison; a JSON file where the path ends in .json, else a CSV.

    Args:
        path: File to write.
        comparison: What to write.
        warnings: What else than the groups may make results differ; in the JSON only.
    """
    if path.suffix == ".json":
        write_json(path, {**_describe(comparison), "warnings": list(warnings)}, SCHEMA)
        return
    rows = tabulate(comparison)
    write_table(path, list(rows[0]), [[_as_text(cell) for cell in row.values()] for row in rows])


def tabulate(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row for each group and budget; see the module for the columns. What is not known is None."""
    reference = {f"reference_{metric}": value for metric, value in comparison.reference_point.items()}
    rows = []
    for group in comparison.groups:
        counts = {name: group.count(*states) for name, states in STATES.items()}
        facts: dict[str, Any] = {
            "group": group.name,
            "studies": len(group.results),
            **counts,
            "images": group.n_images,
        }
        facts |= {
            **_name_spread("hypervolume", group.hypervolume),
            **_name_bounds(group.bounds, comparison),
            **reference,
        }
        for place, budget in enumerate(comparison.budgets):
            found = {"budget": budget.share, "limit": budget.cost, "found": len(group.find_chosen(place))}
            rows.append({**facts, **found, **_summarise(group, place, comparison.metrics)})
    return rows


def _name_spread(metric: str, spread: Spread | None) -> dict[str, float | None]:
    mean, std = (None, None) if spread is None else (spread.mean, spread.std)
    return {metric: mean, f"{metric}_std": std}


def _name_bounds(bounds: tuple[float, float], comparison: Comparison) -> dict[str, float]:
    names = ("hypervolume_low", "hypervolume_high")
    return dict(zip(names, bounds, strict=True)) if comparison.has_margins else {}


def _as_text(cell: Any) -> str:
    return "" if cell is None else str(cell)


def _describe(comparison: Comparison) -> dict[str, Any]:
    return {
        "objectives": [[o.metric, o.direction] for o in comparison.objectives],
        "floor": comparison.floor and comparison.floor.accuracy,
        "reference_point": dict(comparison.reference_point),
        "cost": comparison.cost,
        "budgets": [asdict(budget) for budget in comparison.budgets],
        "groups": [_describe_group(group, comparison) for group in comparison.groups],
        "pairings": [asdict(pairing) for pairing in comparison.pairings],
    }


def _describe_group(group: Group, comparison: Comparison) -> dict[str, Any]:
    chosen = [_summarise(group, place, comparison.metrics) for place in range(len(comparison.budgets))]
    return {
        "name": group.name,
        **_name_spread("hypervolume", group.hypervolume),
        **_name_bounds(group.bounds, comparison),
        "chosen": chosen,
        "studies": [_describe_result(result, comparison) for result in group.results],
    }


def _summarise(group: Group, place: int, metrics: Sequence[str]) -> dict[str, float | None]:
    """Return mean and deviation of each metric of the networks within a budget."""
    named = [_name_spread(metric, group.summarise(place, metric)) for metric in metrics]
    return {name: value for spread in named for name, value in spread.items()}


def _describe_result(result: StudyResult, comparison: Comparison) -> dict[str, Any]:
    study = result.study
    return {
        "name": study.label,
        "folder": str(study.summary.folder.root.absolute()),
        "seed": study.summary.seed,
        **{name: study.count(*states) for name, states in STATES.items()},
        "images": study.n_images,
        "hypervolume": result.hypervolume,
        **_name_bounds(result.bounds, comparison),
        "chosen": [record and _describe_chosen(record, comparison.metrics) for record in result.chosen],
    }


def _describe_chosen(record: TrialRecord, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "trial": record.number,
        "method": record.method,
        "architecture": format_architecture(record),
        **find_known(record, metrics),
    }

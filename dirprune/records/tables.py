"""The study as tables: `trials.csv` with every trial, `front.csv` with the Pareto front, sorted by macs.

| column | meaning |
|---|---|
| trial | number of the trial |
| source | where its configuration comes from: dense, uniform, reference, warm-start or sampler |
| state | trials.csv only: COMPLETE, PRUNED (stopped at a rung), FAIL, RUNNING or WAITING |
| is_front | trials.csv only: 1 on the Pareto front, else 0 |
| each objective, and test_x for val_x | as reported last; accuracy is a fraction; test_* decides nothing |
| macs, parameters | of the compact network: multiply-accumulates of one input, trainable parameters |
| method | importance method; empty for the dense network |
| architecture | kept channels per group in forward order, as in 8-9-36-17 |
| options | JSON: the method's options and the hyperparameters of fine-tuning |
| images | trials.csv only: training images seen in fine-tuning |
| latency_ms | where a study trades or limits it: modelled; equal within the model's error |
| measured_ms, measured_low_ms, measured_high_ms | not in trials.csv: what `dirprune latency` measured last |
| measured_speed_up | not in trials.csv: what the dense network took beside it, as a multiple of that |
| measured_on | not in trials.csv: the batch, precision, device, threads and torch of those, in words |
| every other metric | by name; wall_time_s in s; lr is the last one of the schedule |
| reason | trials.csv only: why the trial failed, was stopped or may not be on the front |

A value that is not known is empty.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from dirprune.cost import COST_METRICS
from dirprune.errors import StudyError
from dirprune.files import write_atomically
from dirprune.records.folder import StudyFolder
from dirprune.records.front import sort_front
from dirprune.records.models import load_model
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective

MEASURED_ON = "measured_on"


def format_architecture(record: TrialRecord) -> str:
    """Return kept channels per group in forward order, as in "8-9-36-17"."""
    return "-".join(str(kept) for kept in record.architecture.values())


def write_trials(path: Path, records: Sequence[TrialRecord], objectives: Sequence[Objective] = ()) -> None:
    """Write every trial, by number; see the module for the columns."""
    chosen, others = _metric_columns(records, objectives)
    facts = ["trial", "source", "state", "is_front"]
    columns = [*facts, *chosen, "method", "architecture", "options", "images", *others, "reason"]
    _write(path, columns, sorted(records, key=lambda record: record.number))


def write_front(path: Path, records: Sequence[TrialRecord], objectives: Sequence[Objective] = ()) -> None:
    """Write the trials of which `is_front` is set, by macs; see the module for the columns."""
    chosen, others = _metric_columns(records, objectives)
    columns = ["trial", "source", *chosen, "method", "architecture", "options", *others]
    _write(path, columns, sort_front(records))


@dataclass(frozen=True)
class FrontPoint:
    """One network of a study's Pareto front.

    Attributes:
        trial: Number of its trial.
        source: Where its configuration comes from.
        method: Importance method; empty for the dense network.
        architecture: Kept channels per group in forward order.
        options: The method's options and the hyperparameters of fine-tuning.
        metrics: Value per metric; accuracy as a fraction, macs and parameters as counts.
        model_dir: Where its model is stored.
        spread: On the final front, the standard deviation of each metric over the seeds.
        n_seeds: On the final front, the trainings of which `metrics` are the means.
        measured_on: What `measured_ms` among the metrics is of: batch, precision and device; empty: nothing
            was measured, or by an earlier version.
    """

    trial: int
    source: str
    method: str
    architecture: tuple[int, ...]
    options: dict[str, Any]
    metrics: dict[str, float]
    model_dir: Path
    spread: dict[str, float] = field(default_factory=dict)
    n_seeds: int = 1
    measured_on: str = ""

    def load_model(self, network: Callable[[], nn.Module] | None = None) -> nn.Module:
        """Rebuild its compact network, in evaluation mode; see `dirprune.records.models.load_model`."""
        return load_model(self.model_dir, network)


def load_front(study: StudyFolder | Path | str, *, final: bool = False) -> list[FrontPoint]:
    """Read a study's Pareto front, sorted by macs.

    Args:
        study: The study's folder, `<output>/<study>`.
        final: Whether to read the front of the finalists instead of the search's: metrics are means over
            seeds, and each model is that of the best seed by validation.
    Raises:
        StudyError: If there is no front yet or the table cannot be read.
    """
    folder = study if isinstance(study, StudyFolder) else StudyFolder(Path(study))
    path = folder.final_front_csv if final else folder.front_csv
    if not path.is_file():
        advice = "train finalists first, with --finalists" if final else "check the path"
        raise StudyError(f"expected a study with {path.name} in {folder.root}, found none; {advice}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_point(row, folder) for row in csv.DictReader(file)]
    except (KeyError, ValueError) as error:
        raise StudyError(f"{path} is not a front as dirprune writes it: {error!r}; draw it again") from error


def _point(row: dict[str, str], folder: StudyFolder) -> FrontPoint:
    trial = int(row["trial"])
    is_final = "n_seeds" in row
    spreads = {name for name in row if is_final and name.endswith("_std") and name[:-4] in row}
    facts = {*_FACT, MEASURED_ON, *spreads, *(("n_seeds", "model") if is_final else ())}
    return FrontPoint(
        trial=trial,
        source=row["source"],
        method=row["method"],
        architecture=tuple(int(kept) for kept in row["architecture"].split("-") if kept),
        options=json.loads(row["options"]),
        metrics={name: float(value) for name, value in row.items() if name not in facts and value},
        model_dir=folder.root / row["model"] if is_final else folder.model_dir(trial),
        spread={name[:-4]: float(row[name]) for name in spreads if row[name]},
        n_seeds=int(row["n_seeds"]) if is_final else 1,
        measured_on=row.get(MEASURED_ON, ""),
    )


def _metric_columns(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> tuple[list[str], list[str]]:
    """Return the metrics that come first (objectives, their test values, costs) and all others by name."""
    reported = {name for record in records for name in record.metrics}
    chosen = []
    for name in [objective.metric for objective in objectives] or ["val_accuracy"]:
        if name not in COST_METRICS:
            chosen += [name, f"test_{name[4:]}"] if name.startswith("val_") else [name]
    chosen += COST_METRICS
    return chosen, sorted(reported - set(chosen))


def _write(path: Path, columns: Sequence[str], records: Sequence[TrialRecord]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows([_cell(record, column) for column in columns] for record in records)


_FACT: dict[str, Callable[[TrialRecord], str | int]] = {
    "trial": lambda record: record.number,
    "source": lambda record: record.source,
    "state": lambda record: record.state,
    "is_front": lambda record: int(record.is_front),
    "method": lambda record: record.method,
    "architecture": format_architecture,
    "options": lambda record: json.dumps(record.options, sort_keys=True, default=str),
    "images": lambda record: record.last_images,
    "reason": lambda record: record.reason or "",
}


def _cell(record: TrialRecord, column: str) -> str | int | float:
    if (fact := _FACT.get(column)) is not None:
        return fact(record)
    value = record.metrics.get(column)
    if value is None:
        return ""
    return int(value) if column in COST_METRICS else float(value)

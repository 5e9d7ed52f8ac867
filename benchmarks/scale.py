"""What a study's accounts cost by the number of its trials: the real ledger, told of made-up trials.

    python benchmarks/scale.py --output DIR [--sizes 100,1000,3000,10000] [--groups 60] [--sampler random]

One study grows to the largest size. Around each size the driver's seconds for one trial are shown by stage
(ask: `next_configuration`; report: two rungs; settle: `completed` or `stopped`), each with everything that
hangs on it: Optuna's journal, records, halving, front, hypervolume, tables and pictures. At each size another
process resumes the study: seconds until it could hand out a trial. Memory is what the driver grew by since
the size before (the first pictures are in the second one's). What a worker writes itself (its events) is not
counted.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import optuna
import torch
from torch import nn

from dirprune.cli.printing import format_table
from dirprune.cost import CostModel
from dirprune.files import write_json
from dirprune.groups import Grouping
from dirprune.records.events import EventLog
from dirprune.records.folder import StudyFolder
from dirprune.records.views import ViewWriter
from dirprune.study.observer import StudySummary
from dirprune.study.space import Configuration
from dirprune.study.spec import StudySpec
from dirprune.tracing import find_groups
from dirprune.tuning import storage
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.samplers import SAMPLERS, make_sampler
from dirprune.tuning.samplers.problem import StudyProblem

RUNGS = (0, 1000)
FULL = 3000
WIDTH = 16
N_OPEN = 8
PLAIN_TPE = "plain-tpe"  # Optuna's, which sees every trial


def make_network(n_groups: int) -> nn.Module:
    """Return a network with so many channel groups."""
    sizes = [8, *[WIDTH] * n_groups]
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 2))


def find_subject(n_groups: int) -> tuple[Grouping, CostModel]:
    """Return the groups and costs of a network with so many groups; finding them does not count."""
    network, example = make_network(n_groups).eval(), torch.zeros(2, 8)
    grouping = find_groups(network, example)
    return grouping, CostModel(network, grouping, example)


def open_ledger(output: Path, subject: tuple[Grouping, CostModel], n_trials: int, sampler: str) -> Ledger:
    """Open the accounts as a driver does, new or resumed."""
    grouping, costs = subject
    dense = costs.costs(grouping.n_channels).as_dict()
    spec = StudySpec(name="scale", network="lenet5", data="digits", trials=n_trials)
    folder = StudyFolder(output / "scale")
    folder.root.mkdir(parents=True, exist_ok=True)
    if folder.study_json.exists():
        storage.heal_journal(folder)
        study = storage.load_study(folder, storage.read_study_json(folder))
    else:
        description = {"objectives": [[o.metric, o.direction] for o in spec.objectives]}
        payload = {"optuna_study": "scale", "storage": "journal", "description": description}
        study = storage.create_study(folder, payload)
        write_json(folder.study_json, payload, storage.STUDY_SCHEMA)
    reference_point = {"val_accuracy": 0.1, "macs": dense["macs"]}
    problem = StudyProblem(spec, spec.space.shapes(costs, {}), costs, reference_point)
    study.sampler = (
        optuna.samplers.TPESampler(multivariate=True, seed=0)
        if sampler == PLAIN_TPE
        else make_sampler(sampler, 0, len(study.get_trials(deepcopy=False)), problem=problem)
    )
    summary = StudySummary(
        name="scale",
        study_id="0",
        folder=folder,
        objectives=spec.objectives,
        reference_point=reference_point,
        dense_costs=dense,
        n_channels=grouping.n_channels,
        n_trials=n_trials,
        seed=0,
    )
    return Ledger(spec, grouping, costs, folder, study, summary, RUNGS, [ViewWriter()])


def measure_memory() -> int:
    """Return this process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class FakeTrial:
    """A trial as the driver sees it: events in its file, a report at each rung, an ending."""

    def __init__(self, ledger: Ledger, configuration: Configuration) -> None:
        self.ledger, self.configuration = ledger, configuration
        self.costs = ledger.costs.costs(configuration.architecture).as_dict()
        rng = np.random.default_rng(configuration.number)
        self.final = 0.99 - 0.3 * (1 - self.costs["macs"] / ledger.summary.dense_costs["macs"]) ** 2
        self.final -= abs(float(rng.normal(0, 0.05)))
        self.log = EventLog(ledger.folder.events(configuration.number), "attempt")
        self.steps = self._run()

    def _run(self) -> Iterator[tuple[int, dict[str, float]]]:
        self.log.append("started", resumed_from=None)
        kept = {name: list(range(n)) for name, n in self.configuration.architecture.items()}
        self.log.append("pruned", **self.costs, kept=kept)
        for images in (*RUNGS, FULL):
            accuracy = self.final - 0.3 * (1 - images / FULL) ** 2
            metrics = {"val_accuracy": accuracy, "val_loss": 1 - accuracy, **self.costs}
            self.log.append("report", images=images, metrics=metrics)
            if images == FULL:
                self.log.append("finished", metrics={**metrics, "test_accuracy": accuracy})
            yield images, metrics


def run_trials(ledger: Ledger, sizes: list[int], output: Path) -> Iterator[dict[str, Any]]:
    """Drive the ledger through all its trials and yield what was measured around each size."""
    stages: dict[str, list[float]] = defaultdict(list)

    def timed(stage: str, call: Any, *arguments: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments)
        stages[stage].append(time.perf_counter() - began)
        return result

    began, memory, n_before = time.perf_counter(), measure_memory(), 0
    trials: list[FakeTrial] = []
    n_ended = 0
    while True:
        while len(trials) < N_OPEN:
            configuration = timed("ask", ledger.next_configuration)
            if configuration is None:
                break
            trials.append(FakeTrial(ledger, configuration))
        if not trials:
            return
        trial = trials.pop(0)
        number = trial.configuration.number
        images, metrics = next(trial.steps)
        if images == FULL:
            timed("settle", ledger.completed, number, metrics)
        elif timed("report", ledger.reported, number, images, metrics):
            trials.append(trial)
            continue
        else:
            timed("settle", ledger.halted, number, images)
        n_ended += 1
        if n_ended in sizes:
            grown, memory = measure_memory() - memory, measure_memory()
            newest = {stage: values[-max(50, n_ended // 20) :] for stage, values in stages.items()}
            yield {
                "trials": n_ended,
                **{f"{stage}_s": float(np.mean(values)) for stage, values in newest.items()},
                **{f"{stage}_max_s": max(values) for stage, values in newest.items()},
                "driver_s": sum(map(sum, stages.values())),
                "wall_s": time.perf_counter() - began,
                "bytes_per_trial": grown / (n_ended - n_before),
                "journal_mb": ledger.folder.journal.stat().st_size / 1e6,
            }
            n_before = n_ended


def measure_resume(output: Path, n_groups: int, sampler: str, size: int) -> dict[str, float]:
    """Resume a copy of the study in another process."""
    copy = output / f"resumed-{size}"
    shutil.copytree(output / "scale", copy / "scale")
    command = [sys.executable, __file__, "--output", str(copy), "--groups", str(n_groups)]
    done = subprocess.run(
        [*command, "--sampler", sampler, "--resume", str(size)], check=True, capture_output=True, text=True
    )
    shutil.rmtree(copy)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def resume(output: Path, n_groups: int, sampler: str, size: int) -> None:
    """Print as JSON what it takes to go on with the study."""
    subject = find_subject(n_groups)
    memory, began = measure_memory(), time.perf_counter()
    ledger = open_ledger(output, subject, size + N_OPEN, sampler)
    opened = time.perf_counter()
    ledger.start()
    started = time.perf_counter()
    assert ledger.next_configuration() is not None
    click.echo(
        json.dumps(
            {
                "open_s": opened - began,
                "start_s": started - opened,
                "resume_s": time.perf_counter() - began,
                "resumed_bytes_per_trial": (measure_memory() - memory) / size,
            }
        )
    )


@click.command
@click.option("--output", type=Path, required=True)
@click.option("--sizes", default="100,1000,3000,10000")
@click.option("--groups", "n_groups", default=60)
@click.option("--sampler", type=click.Choice([*SAMPLERS, PLAIN_TPE]), default="random")
@click.option("--resume", "size", type=int, help="Only resume the study of so many trials (used by itself).")
def main(output: Path, sizes: str, n_groups: int, sampler: str, size: int | None) -> None:
    """Grow one study and print what each size cost."""
    if size is not None:
        resume(output, n_groups, sampler, size)
        return
    marks = [int(mark) for mark in sizes.split(",")]
    shutil.rmtree(output / "scale", ignore_errors=True)
    ledger = open_ledger(output, find_subject(n_groups), marks[-1] + N_OPEN, sampler)
    ledger.start()
    rows = []
    with (output / "scale.jsonl").open("a", encoding="utf-8") as results:
        for row in run_trials(ledger, marks, output):
            row |= {"sampler": sampler, "groups": n_groups}
            row |= measure_resume(output, n_groups, sampler, row["trials"])
            results.write(json.dumps(row) + "\n")
            results.flush()
            click.echo(json.dumps(row), err=True)
            rows.append(_show(row))
    began = time.perf_counter()
    ledger.end(interrupted=False)
    click.echo(format_table(HEADER, rows))
    click.echo(f"the end, with all tables and pictures: {time.perf_counter() - began:.1f} s")


HEADER = ["trials", "ask, ms", "report, ms", "settle, ms", "longest, ms", "driver, s"]
HEADER += ["bytes per trial and group", "journal, MB", "resume, s"]


def _show(row: dict[str, Any]) -> list[str]:
    longest = max(value for name, value in row.items() if name.endswith("_max_s"))
    times = [f"{1000 * row[name]:.1f}" for name in ("ask_s", "report_s", "settle_s")]
    memory = f"{row['bytes_per_trial'] / row['groups']:.0f}"
    rest = [f"{row['driver_s']:.0f}", memory, f"{row['journal_mb']:.0f}", f"{row['resume_s']:.1f}"]
    return [f"{row['trials']:,}", *times, f"{1000 * longest:.0f}", *rest]


if __name__ == "__main__":
    main()

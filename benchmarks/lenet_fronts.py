"""Fronts of the LeNet-5 study on MNIST: all importance methods, random alone and magnitude alone, over seeds.

    python benchmarks/lenet_fronts.py --data DIR --output DIR [--trials 60] [--seeds 0,1,2]

Every row is one run of studies/lenet.py; a run that was cut off goes on when the script is called again.
Of the networks within a budget of MACs, the one with the highest validation accuracy is chosen and its test
error shown: validation decides, test only reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np

from dirprune.cli.printing import format_duration, format_table
from dirprune.records.tables import FrontPoint, load_front

BUDGETS = (236_366, 158_112)  # 8-9-36-17 and 6-7-34-16, the reference's vectors
VARIANTS = {"all methods": None, "random": "random", "magnitude": "magnitude"}
SCRIPT = Path(__file__).parents[1] / "studies" / "lenet.py"


def run(variant: str, seed: int, data: Path, output: Path, trials: int) -> None:
    """Run one study unless it is complete, and note its wall time."""
    name = f"{variant.replace(' ', '-')}-{seed}"
    done = output / name / "wall_time.json"
    if not done.exists():
        methods = VARIANTS[variant]
        command = [sys.executable, SCRIPT, "--data", data, "--output", output, "--name", name, "--resume"]
        command += ["--trials", str(trials), "--seed", str(seed), "--no-tracking"]
        command += ["--methods", methods] if methods else []
        began = time.monotonic()
        subprocess.run(command, check=True)
        done.write_text(json.dumps({"wall_time_s": time.monotonic() - began}))


def best_within(front: list[FrontPoint], macs: int) -> FrontPoint:
    """Return the network that validation chooses among those with at most so many MACs."""
    return max(
        (point for point in front if point.metrics["macs"] <= macs), key=lambda p: p.metrics["val_accuracy"]
    )


def spread(values: list[float]) -> str:
    """Return mean and standard deviation over seeds."""
    if len(values) < 2:
        return f"{values[0]:.2f} (one seed)"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} ({len(values)} seeds)"


@click.command
@click.option("--data", type=Path, required=True)
@click.option("--output", type=Path, required=True)
@click.option("--trials", default=60)
@click.option("--seeds", default="0,1,2")
@click.option("--report", is_flag=True, help="Print the tables of what has been run, and run nothing.")
def main(data: Path, output: Path, trials: int, seeds: str, report: bool) -> None:
    """Run what is missing and print the tables."""
    rows, summary = [], []
    numbers = [int(seed) for seed in seeds.split(",")]
    order = [("all methods", s) for s in numbers] + [(v, s) for s in numbers for v in ("random", "magnitude")]
    if not report:
        for variant, seed in order:
            run(variant, seed, data, output, trials)
    for variant in VARIANTS:
        errors: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
        for seed in numbers:
            folder = output / f"{variant.replace(' ', '-')}-{seed}"
            if not (folder / "wall_time.json").exists():
                continue
            study = json.loads((folder / "study.json").read_text())
            front = load_front(folder)
            row = [variant, str(seed), f"{100 * (1 - study['dense']['metrics']['test_accuracy']):.2f}"]
            for budget in BUDGETS:
                best = best_within(front, budget)
                error = 100 * (1 - best.metrics["test_accuracy"])
                errors[budget].append(error)
                shape = "-".join(map(str, best.architecture))
                row.append(f"{error:.2f} ({best.source}, {best.method}, {shape})")
            wall_time_s = json.loads((folder / "wall_time.json").read_text())["wall_time_s"]
            rows.append([*row, str(len(front)), format_duration(wall_time_s)])
        if any(errors.values()):
            summary.append([variant, *(spread(values) for values in errors.values())])
    budgets = [f"test error % at <= {budget:,} MACs" for budget in BUDGETS]
    click.echo(format_table(["methods", "seed", "dense error %", *budgets, "front", "time"], rows))
    click.echo()
    click.echo(format_table(["methods", *(f"{budget} (mean ± sd)" for budget in budgets)], summary))


if __name__ == "__main__":
    main()

"""The LeNet-5 study on MNIST against plain Ray Tune with Optuna, by the same wall clock.

    python benchmarks/lenet_against_plain.py run --data DIR --weights FILE --output DIR [--minutes 15]
    python benchmarks/lenet_against_plain.py report --output DIR

Both sides start from the same dense network, cut the data alike and use both cores; the seeds take turns.
`dirprune` is `studies/lenet.py` with `--time-limit`. `plain` is what one writes without it: Ray's
OptunaSearch with its default sampler for two objectives over kept channels and learning rate, magnitude
scores, and every trial trained in full. Start-up counts on both sides. A run that was cut off is done anew;
one that is there is left out. FILE comes from `dirprune train`.
"""

from __future__ import annotations

import csv
import logging
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from importance_common import Rows, format_mean

from dirprune.cli.printing import format_table
from dirprune.networks.weights import read_metadata
from dirprune.pareto import front_mask, hypervolume, to_losses

STUDY = Path(__file__).parents[1] / "studies" / "lenet.py"
BUDGETS = (236_366, 158_112, 80_000)
DENSE_MACS = 498_750
CHANCE = 0.1
EPOCHS = 6
MIN_KEEP_RATIO = 0.2
SIZES = {"conv1": 10, "conv2": 20, "linear1": 100, "linear2": 25}
N_TRIALS = 100_000  # more than fit into the time


@click.group()
def main() -> None:
    """Compare fronts found in the same time."""


@main.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--weights", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", default=15.0, show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--arguments", default="", help="Further ones of the study, such as '--methods magnitude'.")
def run(data: Path, weights: Path, output: Path, minutes: float, seeds: str, arguments: str) -> None:
    """Run both sides, one after the other, for every seed."""
    if "validation_from" not in read_metadata(weights):
        raise click.UsageError(
            f"expected weights of dirprune train, which say how the data were cut, got {weights}"
        )
    rows = Rows(output.absolute() / "trials.jsonl")
    output.mkdir(parents=True, exist_ok=True)
    for seed in map(int, seeds.split(",")):
        for side in ("dirprune", "plain"):
            key = {"side": side, "seed": seed, "minutes": minutes, "arguments": arguments}
            if rows.is_done(**key):
                continue
            began = time.monotonic()
            if side == "plain":
                trials = run_plain(
                    data.absolute(), weights.absolute(), 60 * minutes, seed, str(output.absolute() / "ray")
                )
            else:
                trials = run_dirprune(
                    data, weights, output / f"seed-{seed}", minutes, seed, arguments.split()
                )
            rows.add(key, {"trials": trials, "wall_time_s": time.monotonic() - began})


def run_dirprune(
    data: Path, weights: Path, output: Path, minutes: float, seed: int, arguments: list[str]
) -> list[dict[str, Any]]:
    """Run the study in a process of its own; return its finished trials."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, str(STUDY), "--no-tracking", "--trials", str(N_TRIALS), "--seed", str(seed)]
    command += ["--data", str(data), "--weights", str(weights), "--output", str(output)]
    command += ["--time-limit", f"{60 * minutes:g}", *arguments]
    subprocess.run(command, check=False)
    with (output / "lenet" / "trials.csv").open(encoding="utf-8") as file:
        return [_read(row) for row in csv.DictReader(file) if row["state"] == "COMPLETE"]


def run_plain(data: Path, weights: Path, seconds: float, seed: int, scratch: str) -> list[dict[str, Any]]:
    """Run plain Ray Tune with Optuna; return its finished trials."""
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    began = time.monotonic()
    ray.init(
        address="local",  # whatever else runs on this machine
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
    )
    try:
        search = OptunaSearch(define_plain, metric=["val_accuracy", "macs"], mode=["max", "min"], seed=seed)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(train_plain, data=str(data), weights=str(weights), seed=seed), {"cpu": 1}
            ),
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=-1,
                max_concurrent_trials=2,
                time_budget_s=max(1.0, seconds - (time.monotonic() - began)),
            ),
            run_config=tune.RunConfig(verbose=0, storage_path=scratch),
        )
        results = tuner.fit()
    finally:
        ray.shutdown()
    found = [
        result.metrics
        for result in map(results.__getitem__, range(len(results)))
        if result.metrics and "test_accuracy" in result.metrics
    ]
    return [_read(metrics) for metrics in found]


def define_plain(trial: Any) -> None:
    """Draw kept channels and learning rate from an Optuna trial, as plain Ray Tune asks for it."""
    for name, size in SIZES.items():
        trial.suggest_int(name, math.ceil(MIN_KEEP_RATIO * size), size)
    trial.suggest_float("lr", 3e-3, 1.2e-2, log=True)


def train_plain(config: Mapping[str, Any], data: str, weights: str, seed: int) -> None:
    """Prune, recalibrate, fine-tune in full and report once, as one trial of plain Ray Tune."""
    import torch
    from ray import tune

    from dirprune.cost import count_costs
    from dirprune.data import load_data
    from dirprune.evaluation import evaluate
    from dirprune.networks import create_network, load_weights_
    from dirprune.pruning import prune
    from dirprune.recipe import Recipe
    from dirprune.tasks import make_task
    from dirprune.training import train_

    torch.set_num_threads(1)
    said = read_metadata(Path(weights))
    roles = load_data(
        "mnist", Path(data), validation_from=said["validation_from"], seed=int(said["data_seed"])
    )
    network = create_network("lenet5")
    load_weights_(network, Path(weights))
    architecture = ",".join(str(config[name]) for name in SIZES)
    small = prune(network, roles, architecture=architecture, method="magnitude").network
    recipe = Recipe(images=EPOCHS * len(roles.train), lr=config["lr"], channels_last=True)
    *_, last = train_(small, roles, make_task(), recipe, seed=seed)
    metrics = {**last.metrics, **evaluate(small, roles.test, roles, make_task(), prefix="test_")}
    tune.report({**metrics, "macs": count_costs(small, roles.example_input()).macs})


def _read(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: float(row[name]) for name in ("val_accuracy", "test_accuracy", "macs")}
    return {**kept, "source": row.get("source", "sampler")}


@main.command()
@click.option("--output", type=click.Path(exists=True, path_type=Path), required=True)
def report(output: Path) -> None:
    """Print hypervolumes and test errors, and draw all fronts in one picture."""
    table: dict[str, dict[str, list[float]]] = {}
    rows = list(Rows(output / "trials.jsonl"))
    for row in rows:
        values = table.setdefault(row["side"], {})
        points = np.array([[trial["val_accuracy"], trial["macs"]] for trial in row["trials"]])
        losses = to_losses(points, ("maximize", "minimize")) / [1.0, DENSE_MACS]
        values.setdefault("trials finished", []).append(len(points))
        values.setdefault("hypervolume", []).append(hypervolume(losses, (-CHANCE, 1.0)))
        for budget in BUDGETS:
            within = [trial for trial in row["trials"] if trial["macs"] <= budget]
            if within:  # validation chooses, test reports
                best = max(within, key=lambda trial: trial["val_accuracy"])
                error = 100 * (1 - best["test_accuracy"])
                values.setdefault(f"test error % at <= {budget:,} MACs", []).append(error)
    names = list(dict.fromkeys(name for values in table.values() for name in values))
    lines = [[name, *(format_mean(values.get(name, []), 3) for values in table.values())] for name in names]
    click.echo(format_table(["mean ± sd over seeds", *table], lines))
    _draw(rows, output / "fronts.png")
    click.echo(f"picture: {output / 'fronts.png'}")


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    colours = dict(zip(dict.fromkeys(row["side"] for row in rows), ("C0", "C1"), strict=False))
    labelled = set[str]()
    for row in rows:
        points = np.array([[trial["macs"], 1 - trial["val_accuracy"]] for trial in row["trials"]])
        front = points[front_mask(points)]
        front = front[np.argsort(front[:, 0])]
        label = None if row["side"] in labelled else row["side"]
        labelled.add(row["side"])
        axes.step(
            front[:, 0], 100 * front[:, 1], where="post", color=colours[row["side"]], label=label, alpha=0.8
        )
    axes.set(
        xlabel="MACs", ylabel="validation error, %", yscale="log", title="LeNet-5 on MNIST, same wall clock"
    )
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()

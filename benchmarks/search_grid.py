"""Train every architecture of a grid of LeNet-5, so that searches over it cost nothing.

    python benchmarks/search_grid.py train --mnist DIR --weights FILE --rows rows.jsonl
    python benchmarks/search_grid.py pack --rows rows.jsonl --table benchmarks/data/lenet_grid.csv
    python benchmarks/search_grid.py curves --mnist DIR --weights FILE --table lenet_curves.json

`train` goes on where it was cut off; architectures come in random order, so that a part of the grid is a
random sample of it. FILE comes from `dirprune train --data DIR --epochs 10 --seed 0`.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from importance_common import Rows
from torch import nn

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.data import DataRoles, load_data
from dirprune.evaluation import evaluate
from dirprune.groups import Grouping
from dirprune.importance import ScoreCache, ScoringContext, create
from dirprune.networks import create_network, load_weights_
from dirprune.networks.weights import read_metadata
from dirprune.pruning import prune
from dirprune.recipe import Recipe
from dirprune.sensitivity import measure_curves
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from dirprune.training import train_

WIDTHS = ((2, 4, 6, 8, 10), (4, 8, 12, 16, 20), (10, 25, 45, 70, 100), (5, 10, 15, 20, 25))
"""Kept channels of conv1, conv2, linear1 and linear2."""
EPOCHS = (0, 1, 3)
"""Passes over the subset after which an architecture is judged; 0 is right after recalibration."""
N_TRAIN = 4_000
N_VALIDATION = 3_000
SEEDS = (0, 1)
COLUMNS = (
    "seed",
    "architecture",
    "macs",
    "parameters",
    *(f"val_accuracy_{e}" for e in EPOCHS),
    "test_accuracy",
)


def list_architectures(grouping: Grouping) -> Iterator[Architecture]:
    """Yield the 625 architectures in a random order that is always the same."""
    every = [
        Architecture(dict(zip(grouping.names, kept, strict=True))) for kept in itertools.product(*WIDTHS)
    ]
    for place in np.random.default_rng(0).permutation(len(every)):
        yield every[place]


def load_subject(mnist: Path, weights: Path) -> tuple[DataRoles, nn.Module]:
    """Return the data as the weights were trained on it, and LeNet-5 with the weights."""
    said = read_metadata(weights)
    roles = load_data("mnist", mnist, validation_from=said["validation_from"], seed=int(said["data_seed"]))
    network = create_network("lenet5")
    load_weights_(network, weights)
    return roles, network


@click.group()
def main() -> None:
    """Train a grid of architectures."""


@main.command()
@click.option("--mnist", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--weights", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--rows", "path", type=click.Path(path_type=Path), required=True)
@click.option("--limit", type=int, help="Train only so many architectures of each seed.")
def train(mnist: Path, weights: Path, path: Path, limit: int | None) -> None:
    """Prune by magnitude, recalibrate, fine-tune on a subset, and judge after 0, 1 and 3 passes over it."""
    torch.set_num_threads(1)
    roles, network = load_subject(mnist, weights)
    drawn = torch.Generator().manual_seed(0)
    roles = dataclasses.replace(
        roles,
        train=roles.train.subset(torch.randperm(len(roles.train), generator=drawn)[:N_TRAIN]),
        validation=roles.validation.subset(
            torch.randperm(len(roles.validation), generator=drawn)[:N_VALIDATION]
        ),
    )
    grouping = find_groups(network.eval(), roles.example_input())
    costs = CostModel(network, grouping, roles.example_input())
    rows = Rows(path)
    stops = [epochs * N_TRAIN for epochs in EPOCHS]
    recipe = Recipe(images=stops[-1], batch_size=64, channels_last=True)
    for seed in SEEDS:
        for architecture in itertools.islice(list_architectures(grouping), limit):
            key = {"seed": seed, "architecture": str(architecture)}
            if rows.is_done(**key):
                continue
            small = prune(
                network, roles, architecture=architecture, method="magnitude", seed=0, grouping=grouping
            ).network
            values: dict[str, float] = dict(costs.costs(architecture).as_dict())
            for report in train_(small, roles, make_task(), recipe, seed=seed, stops=stops):
                if report.images in stops:
                    values[f"val_accuracy_{report.images // N_TRAIN}"] = report.metrics["val_accuracy"]
            values["test_accuracy"] = evaluate(small, roles.test, roles, make_task(), prefix="")["accuracy"]
            rows.add(key, values)


@main.command()
@click.option("--mnist", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--weights", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--table", type=click.Path(path_type=Path), required=True)
def curves(mnist: Path, weights: Path, table: Path) -> None:
    """Write what the network loses when groups are cut alone to the grid's widths, as a study measures it."""
    torch.set_num_threads(1)
    roles, network = load_subject(mnist, weights)
    context = ScoringContext(
        network.eval(),
        find_groups(network, roles.example_input()),
        roles.calibration,
        roles.normalise,
        make_task(),
    )
    widths = dict(zip(context.grouping.names, WIDTHS, strict=True))
    method = create("magnitude", {})
    found = measure_curves(context, method, widths, cache=ScoreCache(table.parent / "scores"))
    table.write_text(json.dumps({name: vars(curve) for name, curve in found.items()}, indent=1) + "\n")


@main.command()
@click.option("--rows", "path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--table", type=click.Path(path_type=Path), required=True)
def pack(path: Path, table: Path) -> None:
    """Write the rows as a table, sorted; accuracies with four places, as many as the images allow."""
    rows = sorted(Rows(path), key=lambda row: (row["seed"], row["macs"], row["architecture"]))
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _shorten(row[name]) for name in COLUMNS})


def _shorten(value: float | str) -> float | str:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()

"""Train a grid's architectures, so that searches over it cost nothing: all of LeNet-5, a sample of ResNet-20.

    python benchmarks/search_grid.py --subject NAME --data DIR --weights FILE train --rows rows.jsonl
    python benchmarks/search_grid.py --subject NAME --data DIR --weights FILE curves --table NAME_curves.json
    python benchmarks/search_grid.py --subject NAME --data DIR --weights FILE scores --table NAME_scores.json
    python benchmarks/search_grid.py --subject NAME --data DIR --weights FILE path --table NAME_path.json
    python benchmarks/search_grid.py pack --rows rows.jsonl --table NAME_grid.csv

The tables belong into benchmarks/data. `train` goes on where it was cut off; architectures come in
random order, so that a part of the grid is a random sample of it. LeNet-5's weights come from `dirprune
train --data DIR --epochs 10 --seed 0`; those of ResNet-20 are published and may have seen the whole
training set: validation is a half of the test set there.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from importance_common import Rows
from torch import nn

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.data import DataRoles, load_data
from dirprune.data.roles import FOREIGN_SPLIT
from dirprune.evaluation import evaluate
from dirprune.groups import Grouping
from dirprune.importance import ScoreCache, ScoringContext, create, find_scores
from dirprune.importance.greedy import PathOptions, compute_path
from dirprune.importance.greedy.images import with_examples
from dirprune.networks import create_network, load_weights_
from dirprune.networks.weights import read_metadata
from dirprune.pruning import prune
from dirprune.recipe import Recipe
from dirprune.recipes import CIFAR_FINE_TUNING
from dirprune.sensitivity import Cuts, measure_curves, measure_loss
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from dirprune.training import train_

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


@dataclass(frozen=True)
class Subject:
    """A network whose architectures make the grid.

    Attributes:
        network: Its name.
        data: Name of the data set.
        input_shape: Of one image: channels, height, width.
        widths: Kept channels of each group in forward order.
        recipe: How an architecture is fine-tuned, but for the number of images.
        is_reconstructed: Whether layers are refitted behind the cuts; else batch norm is recalibrated.
        is_complete: Whether the table has every architecture.
        is_foreign: Whether others trained the weights.
    """

    network: str
    data: str
    input_shape: tuple[int, int, int]
    widths: tuple[tuple[int, ...], ...]
    recipe: Recipe
    is_reconstructed: bool
    is_complete: bool
    is_foreign: bool

    def load(self, data: Path, weights: Path) -> tuple[DataRoles, nn.Module]:
        """Return the data as the weights were trained on it, and the network with the weights."""
        said = {} if self.is_foreign else read_metadata(weights)
        roles = load_data(
            self.data,
            data,
            validation_from=said.get("validation_from", FOREIGN_SPLIT),
            seed=int(said.get("data_seed", 0)),
        )
        network = create_network(self.network)
        load_weights_(network, weights)
        return roles, network.eval()

    def list_architectures(self, grouping: Grouping) -> Iterator[Architecture]:
        """Yield every architecture once in a random order that is always the same, or draw without an end.

        What is drawn is spread along the costs: a level for the whole network, then each group's about it.
        """
        generator = np.random.default_rng(0)
        if self.is_complete:
            every = list(itertools.product(*self.widths))
            for place in generator.permutation(len(every)):
                yield Architecture(dict(zip(grouping.names, every[place], strict=True)))
            return
        while True:
            level = generator.random()
            kept = [widths[generator.binomial(len(widths) - 1, level)] for widths in self.widths]
            yield Architecture(dict(zip(grouping.names, kept, strict=True)))


SUBJECTS = {
    "lenet5": Subject(
        network="lenet5",
        data="mnist",
        input_shape=(1, 28, 28),
        widths=((2, 4, 6, 8, 10), (4, 8, 12, 16, 20), (10, 25, 45, 70, 100), (5, 10, 15, 20, 25)),
        recipe=Recipe(images=0, batch_size=64, channels_last=True),
        is_reconstructed=False,
        is_complete=True,
        is_foreign=False,
    ),
    "resnet20": Subject(
        network="resnet20",
        data="cifar10",
        input_shape=(3, 32, 32),
        widths=(*3 * ((4, 7, 10, 13, 16),), *3 * ((8, 14, 20, 26, 32),), *3 * ((16, 28, 40, 52, 64),)),
        recipe=dataclasses.replace(CIFAR_FINE_TUNING, distillation=0.0),
        is_reconstructed=True,
        is_complete=False,
        is_foreign=True,
    ),
}


@dataclass(frozen=True)
class Given:
    """What the command line says of the subject."""

    subject: Subject
    data: Path | None
    weights: Path | None

    def load(self) -> tuple[DataRoles, nn.Module]:
        """Return data and network, for one thread."""
        if self.data is None or self.weights is None:
            raise click.UsageError("expected --data DIR and --weights FILE before the command")
        torch.set_num_threads(1)
        return self.subject.load(self.data, self.weights)

    def open_context(self) -> ScoringContext:
        """Return what scores and curves are computed from."""
        roles, network = self.load()
        grouping = find_groups(network, roles.example_input())
        return ScoringContext(network, grouping, roles.calibration, roles.normalise, make_task())


@click.group(context_settings={"show_default": True})
@click.option("--subject", type=click.Choice(list(SUBJECTS)), default="lenet5")
@click.option("--data", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", type=click.Path(exists=True, path_type=Path))
@click.pass_context
def main(context: click.Context, subject: str, data: Path | None, weights: Path | None) -> None:
    """Train a grid of architectures."""
    context.obj = Given(SUBJECTS[subject], data, weights)


@main.command()
@click.option("--rows", "path", type=click.Path(path_type=Path), required=True)
@click.option("--seeds", default="0,1")
@click.option("--limit", type=int, help="Train only so many architectures of each seed; needed for a sample.")
@click.pass_obj
def train(given: Given, path: Path, seeds: str, limit: int | None) -> None:
    """Prune by magnitude, repair, fine-tune on a subset, and judge after 0, 1 and 3 passes over it."""
    subject = given.subject
    if not subject.is_complete and limit is None:
        raise click.UsageError("expected --limit N: the grid is too large to be trained")
    roles, network = given.load()
    drawn = torch.Generator().manual_seed(0)
    roles = dataclasses.replace(
        roles,
        train=roles.train.subset(torch.randperm(len(roles.train), generator=drawn)[:N_TRAIN]),
        validation=roles.validation.subset(
            torch.randperm(len(roles.validation), generator=drawn)[:N_VALIDATION]
        ),
    )
    grouping = find_groups(network, roles.example_input())
    costs = CostModel(network, grouping, roles.example_input())
    rows = Rows(path)
    stops = [epochs * N_TRAIN for epochs in EPOCHS]
    recipe = dataclasses.replace(subject.recipe, images=stops[-1])
    for seed in map(int, seeds.split(",")):
        for architecture in itertools.islice(subject.list_architectures(grouping), limit):
            key = {"seed": seed, "architecture": str(architecture)}
            if rows.is_done(**key):
                continue
            small = prune(
                network,
                roles,
                architecture=architecture,
                method="magnitude",
                seed=0,
                grouping=grouping,
                reconstruct=subject.is_reconstructed,
            ).network
            values: dict[str, float] = dict(costs.costs(architecture).as_dict())
            for report in train_(small, roles, make_task(), recipe, seed=seed, stops=stops):
                if report.images in stops:
                    values[f"val_accuracy_{report.images // N_TRAIN}"] = report.metrics["val_accuracy"]
            if subject.is_complete:
                values["test_accuracy"] = evaluate(small, roles.test, roles, make_task(), prefix="")[
                    "accuracy"
                ]
            rows.add(key, values)


@main.command()
@click.option("--table", type=click.Path(path_type=Path), required=True)
@click.pass_obj
def curves(given: Given, table: Path) -> None:
    """Write what the network loses when groups are cut alone to the grid's widths, as a study measures it."""
    context = given.open_context()
    widths = dict(zip(context.grouping.names, given.subject.widths, strict=True))
    method = create("magnitude", {})
    found = measure_curves(Cuts(context, method, cache=ScoreCache(table.parent / "scores")), widths)
    table.write_text(json.dumps({name: vars(curve) for name, curve in found.items()}, indent=1) + "\n")


@main.command()
@click.option("--table", type=click.Path(path_type=Path), required=True)
@click.pass_obj
def scores(given: Given, table: Path) -> None:
    """Write the scores by which the grid's architectures were pruned."""
    found, _ = find_scores(create("magnitude", {}), given.open_context())
    rounded = {group: [float(f"{value:.5g}") for value in values] for group, values in found.items()}
    table.write_text(json.dumps(rounded, indent=1) + "\n")


@main.command()
@click.option("--table", type=click.Path(path_type=Path), required=True)
@click.pass_obj
def path(given: Given, table: Path) -> None:
    """Write what greedy elimination over all groups comes by: kept channels, and what the network loses."""
    context = given.open_context()
    whole = -measure_loss(with_examples(context, PathOptions.n_examples), context.network)
    lost = {str(step.architecture): whole - step.value for step in compute_path(context).steps}
    table.write_text(json.dumps(lost, indent=1) + "\n")


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
            writer.writerow({name: _shorten(row.get(name, "")) for name in COLUMNS})


def _shorten(value: float | str) -> float | str:
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()

"""Which recipe fine-tunes small LeNet-5 networks on MNIST best?

    python benchmarks/recipes.py run --data DIR --output DIR [--recipes A,B] [--epochs 10] [--seeds 0,1,2]
    python benchmarks/recipes.py report --output DIR

Each training starts as a trial of `studies/lenet.py` does: the dense network, trained once for each dense
recipe, loses channels by magnitude and is reconstructed. It ends with the recipe's last weights. Validation
decides between recipes, test is reported. What is measured already is left out, so that a run which was cut
off goes on; several runs may share the output. CPU seconds are of one thread, evaluations included.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from filelock import FileLock
from importance_common import Rows, format_mean
from torch import nn

from dirprune.cli.printing import format_table
from dirprune.cost import count_costs
from dirprune.data import DataRoles, load_data
from dirprune.evaluation import evaluate
from dirprune.networks import create_network, load_weights_
from dirprune.networks.weights import save_weights
from dirprune.pruning import prune
from dirprune.recipe import Recipe
from dirprune.tasks import make_task
from dirprune.training import train_

DENSE = {
    "plain": (20, Recipe(images=0, lr=4e-3)),
    "shift 2": (20, Recipe(images=0, lr=4e-3, shift=2, channels_last=True)),
}
"""Dense networks by name: their epochs, and how they are trained."""

FINE_TUNING = Recipe(images=0, lr=6e-3, channels_last=True)
SOFT = {"distillation": 0.9, "temperature": 4.0}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "shift 1, plain dense": ("plain", {"shift": 1}),
    "shift 1": ("shift 2", {"shift": 1}),
    "distilled 0.5 at T 2": ("shift 2", {"distillation": 0.5}),
    "shift 1, distilled 0.5 at T 2": ("shift 2", {"shift": 1, "distillation": 0.5}),
    "shift 1, distilled 0.9 at T 4": ("shift 2", {"shift": 1, **SOFT}),
    "affine": ("shift 2", {"shift": 1, "rotation": 10.0, "scaling": 0.1, "shear": 10.0}),
    "elastic": ("shift 2", {"shift": 1, "elastic": 0.5}),
    "shift 1, smoothed": ("shift 2", {"shift": 1, "label_smoothing": 0.1}),
    "shift 1, clipped": ("shift 2", {"shift": 1, "clip_norm": 1.0}),
    "shift 1, warmed up": ("shift 2", {"shift": 1, "warmup": 0.1}),
    "shift 1, batches of 256": ("shift 2", {"shift": 1, "batch_size": 256}),
    "shift 1, SGD": ("shift 2", {"shift": 1, "optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4}),
}
"""Recipes by name: the dense network that they start from, and the fields of `FINE_TUNING` they change."""

ARCHITECTURES = "6,7,34,16;3,20,45,9;3,7,25,7"
MEASURES = ("val_error", "val_loss", "test_error", "cpu_s")


@click.group()
def main() -> None:
    """Compare recipes of fine-tuning."""


@main.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--recipes", default=";".join(RECIPES), show_default=True, help="Names with ; between them.")
@click.option("--architectures", default=ARCHITECTURES, show_default=True)
@click.option("--epochs", default=10.0, show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--train-images", type=int, help="Use only so many; for a trial.")
def run(
    data: Path,
    output: Path,
    recipes: str,
    architectures: str,
    epochs: float,
    seeds: str,
    train_images: int | None,
) -> None:
    """Train every recipe on every architecture with every seed."""
    torch.set_num_threads(1)
    roles = load_data("mnist", data, validation_from="train:0.1", train_limit=train_images, seed=0)
    rows = Rows(output / "recipes.jsonl")
    for seed in map(int, seeds.split(",")):
        for recipe in recipes.split(";"):
            for architecture in architectures.split(";"):
                key = {"recipe": recipe, "architecture": architecture, "epochs": epochs, "seed": seed}
                if not rows.is_done(**key):
                    rows.add(key, measure(key, roles, output))


def measure(key: Mapping[str, Any], roles: DataRoles, output: Path) -> dict[str, Any]:
    """Prune, fine-tune and judge one network."""
    name, changes = RECIPES[key["recipe"]]
    dense = make_dense(name, roles, output)
    began = time.process_time()
    network = prune(
        dense, roles, architecture=key["architecture"], method="magnitude", reconstruct=True
    ).network
    recipe = replace(FINE_TUNING, images=round(key["epochs"] * len(roles.train)), **changes)
    *_, last = train_(network, roles, make_task(), recipe, seed=key["seed"], teacher=dense)
    return {
        "macs": count_costs(network, roles.example_input()).macs,
        **judge(network, roles),
        "train_loss": last.metrics["train_loss"],
        "cpu_s": time.process_time() - began,
    }


def make_dense(name: str, roles: DataRoles, output: Path) -> nn.Module:
    """Return a dense network, trained if it is not there yet."""
    network = create_network("lenet5", seed=0)
    path = output / f"dense-{name.replace(' ', '-')}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            epochs, recipe = DENSE[name]
            began = time.process_time()
            recipe = replace(recipe, images=epochs * len(roles.train))
            for _ in train_(network, roles, make_task(), recipe, seed=0):
                pass
            values = {**judge(network, roles), "cpu_s": time.process_time() - began}
            key = {"recipe": f"dense: {name}", "architecture": "dense", "epochs": epochs, "seed": 0}
            Rows(output / "recipes.jsonl").add(key, {"macs": 498_750, **values})
            save_weights(network, path, {})
    load_weights_(network, path)
    return network.eval()


def judge(network: nn.Module, roles: DataRoles) -> dict[str, float]:
    """Return errors as fractions, and the loss on validation."""
    validation = evaluate(network, roles.validation, roles, make_task())
    test = evaluate(network, roles.test, roles, make_task(), prefix="test_")
    return {
        "val_error": 1 - validation["val_accuracy"],
        "val_loss": validation["val_loss"],
        "test_error": 1 - test["test_accuracy"],
    }


@main.command()
@click.option("--output", type=click.Path(exists=True, path_type=Path), required=True)
def report(output: Path) -> None:
    """Print means and standard deviations over seeds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in Rows(output / "recipes.jsonl"):
        key = (row["macs"], row["architecture"], row["recipe"], row["epochs"])
        groups.setdefault(key, []).append(row)
    lines = []
    for (macs, architecture, recipe, epochs), rows in sorted(groups.items()):
        values = {name: [row[name] for row in rows] for name in MEASURES}
        lines.append(
            [
                f"{architecture} ({macs:,})",
                recipe,
                f"{epochs:g}",
                str(len(rows)),
                format_mean(values["val_error"], 2, 100),
                format_mean(values["val_loss"], 4),
                format_mean(values["test_error"], 2, 100),
                format_mean(values["cpu_s"], 0),
            ]
        )
    titles = ["architecture", "recipe", "epochs", "seeds", "validation error %", "validation loss"]
    click.echo(format_table([*titles, "test error %", "CPU s"], lines))


if __name__ == "__main__":
    main()

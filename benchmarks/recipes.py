"""Which recipe trains and fine-tunes best: LeNet-5 on MNIST, ResNet-20 on CIFAR-10, ResNet-18 on photographs?

    python benchmarks/recipes.py run --data DIR --output DIR [--recipes "A;B"] [--epochs 10] [--seeds 0,1,2]
    python benchmarks/recipes.py run --subject resnet20 --weights FILE --data DIR --output DIR --epochs 4 \\
        --train-images 10000
    python benchmarks/recipes.py run --subject resnet18 --data DIR --output DIR --epochs 1.5 \\
        --train-images 3000 [--dense "rate 0.1;rate 0.03, warmed up"]
    python benchmarks/recipes.py report --output DIR

Each training starts as a trial of the subject's study does: the dense network (trained once for each dense
recipe with seed 0 and kept, ResNet-20's weights are given) loses channels by magnitude and is reconstructed.
With --dense, dense networks are trained from scratch instead, with every seed. All end with the recipe's last
weights. Validation decides between recipes, test is reported; weights that are given may have seen the whole
training set, so that validation is then a half of the test set. Photographs are class folders,
train/<class>/<image> and val/<class>/<image>, seen at 64 pixels. What is measured already is left out, so
that a run which was cut off goes on; several runs may share the output, but those of another --subject,
--dataset, --dense-epochs or --train-images have one of their own. CPU seconds are of one thread, evaluations
included.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from dirprune.data.roles import FOREIGN_SPLIT, OWN_SPLIT
from dirprune.errors import suggest
from dirprune.evaluation import evaluate
from dirprune.networks import create_network, load_weights_, with_classes
from dirprune.networks.weights import save_weights
from dirprune.pruning import prune
from dirprune.recipe import Recipe
from dirprune.recipes import CIFAR_FINE_TUNING, IMAGES, IMAGES_FINE_TUNING
from dirprune.tasks import make_task
from dirprune.training import train_

SOFT = {"distillation": 0.9, "temperature": 4.0}


@dataclass(frozen=True)
class Subject:
    """What is trained or fine-tuned.

    Attributes:
        network: Its name.
        data: Name of the data set.
        dense: Dense networks by name: their epochs, and how they are trained; none where weights are given.
        fine_tuning: The recipe that the others differ from.
        recipes: Recipes by name: the dense network that they start from, and the fields that they change.
        architectures: Channels per group, or one keep ratio for all, with ; between them.
    """

    network: str
    data: str
    dense: Mapping[str, tuple[float, Recipe]]
    fine_tuning: Recipe
    recipes: Mapping[str, tuple[str, Mapping[str, Any]]]
    architectures: str


SUBJECTS = {
    "lenet5": Subject(
        "lenet5",
        "mnist",
        {
            "plain": (20, Recipe(images=0, lr=4e-3)),
            "shift 2": (20, Recipe(images=0, lr=4e-3, shift=2, channels_last=True)),
        },
        Recipe(images=0, lr=6e-3, channels_last=True),
        {
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
        },
        "6,7,34,16;3,20,45,9;3,7,25,7",
    ),
    "resnet20": Subject(
        "resnet20",
        "cifar10",
        {},
        CIFAR_FINE_TUNING,
        {
            "as the studies": ("given", {}),
            "not distilled": ("given", {"distillation": 0.0}),
            "distilled 0.9 at T 4": ("given", SOFT),
            "distilled 0.9 at T 2": ("given", {"distillation": 0.9}),
            "distilled 1 at T 4": ("given", {**SOFT, "distillation": 1.0}),
            "distilled 0.9 at T 4, rate 0.03": ("given", {**SOFT, "lr": 0.03}),
            "rate 0.003": ("given", {"lr": 0.003}),
            "rate 0.03": ("given", {"lr": 0.03}),
            "rate 0.1": ("given", {"lr": 0.1}),
            "smoothed": ("given", {"label_smoothing": 0.1}),
            "clipped": ("given", {"clip_norm": 1.0}),
            "warmed up": ("given", {"warmup": 0.1}),
            "not augmented": ("given", {"shift": 0, "flips": False}),
            "AdamW": ("given", {"optimizer": "adamw", "lr": 2e-3, "weight_decay": 1e-2}),
            "bfloat16": ("given", {"precision": "bfloat16"}),
            "channels not last": ("given", {"channels_last": False}),
        },
        "0.5;0.25",
    ),
    "resnet18": Subject(
        "torchvision/resnet18",
        "folders:64",
        {
            "rate 0.1": (5, replace(IMAGES, lr=0.1, warmup=0.0)),
            "rate 0.1, warmed up": (5, replace(IMAGES, lr=0.1, warmup=0.05)),
            "rate 0.05, warmed up": (5, replace(IMAGES, lr=0.05, warmup=0.05)),
            "rate 0.03": (5, replace(IMAGES, lr=0.03, warmup=0.0)),
            "rate 0.03, warmed up": (5, replace(IMAGES, lr=0.03, warmup=0.05)),
            "rate 0.01": (5, replace(IMAGES, lr=0.01, warmup=0.0)),
            "rate 0.01, warmed up": (5, replace(IMAGES, lr=0.01, warmup=0.05)),
            "rate 0.03, warmed up, smoothed": (
                5,
                replace(IMAGES, lr=0.03, warmup=0.05, label_smoothing=0.1),
            ),
            "rate 0.03, warmed up, decay 5e-4": (
                5,
                replace(IMAGES, lr=0.03, warmup=0.05, weight_decay=5e-4),
            ),
        },
        IMAGES_FINE_TUNING,
        {
            "as the studies": ("rate 0.03, warmed up", {}),
            "not distilled": ("rate 0.03, warmed up", {"distillation": 0.0}),
            "distilled 0.9 at T 2": ("rate 0.03, warmed up", {"distillation": 0.9, "temperature": 2.0}),
            "distilled 0.9 at T 4": ("rate 0.03, warmed up", SOFT),
            "rate 0.003": ("rate 0.03, warmed up", {"lr": 0.003}),
            "rate 0.03": ("rate 0.03, warmed up", {"lr": 0.03}),
            "crops of half the area": ("rate 0.03, warmed up", {"min_area": 0.5}),
            "whole images": ("rate 0.03, warmed up", {"min_area": 1.0}),
        },
        "0.5",
    ),
}
MEASURES = ("val_error", "val_loss", "test_error", "cpu_s")


@click.group()
def main() -> None:
    """Compare recipes of training and of fine-tuning."""


@main.command()
@click.option("--subject", "name", type=click.Choice(list(SUBJECTS)), default="lenet5", show_default=True)
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="ResNet-20's.")
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--recipes", help="Names with ; between them. Default: all of the subject.")
@click.option("--dense", help="Train these dense networks instead. Names with ; between them.")
@click.option("--dense-epochs", type=float, help="Default: the subject's.")
@click.option("--dataset", help="Default: the subject's; folders:32 are smaller photographs.")
@click.option("--architectures", help="With ; between them. Default: the subject's.")
@click.option("--epochs", default=10.0, show_default=True)
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--train-images", type=int, help="Use only so many; for a trial.")
def run(
    name: str,
    weights: Path | None,
    data: Path,
    output: Path,
    recipes: str | None,
    dense: str | None,
    dense_epochs: float | None,
    dataset: str | None,
    architectures: str | None,
    epochs: float,
    seeds: str,
    train_images: int | None,
) -> None:
    """Train every recipe on every architecture with every seed."""
    torch.set_num_threads(1)
    subject = SUBJECTS[name]
    subject = replace(
        subject,
        data=dataset or subject.data,
        dense={key: (dense_epochs or usual, recipe) for key, (usual, recipe) in subject.dense.items()},
    )
    if (name == "resnet20") != (weights is not None):
        raise click.UsageError("--weights FILE goes with --subject resnet20, and only with it")
    roles = load_data(
        subject.data,
        data,
        validation_from=FOREIGN_SPLIT if weights else OWN_SPLIT,
        train_limit=train_images,
        seed=0,
    )
    rows = Rows(output / "recipes.jsonl")
    dense_names = choose(dense, subject.dense) if dense else []
    fine_tunings = [] if dense else choose(recipes, subject.recipes)
    for seed in map(int, seeds.split(",")):
        for dense_name in dense_names:
            train_dense(subject, dense_name, roles, rows, seed)
        for recipe in fine_tunings:
            dense_name, changes = subject.recipes[recipe]
            changed = replace(subject.fine_tuning, images=round(epochs * len(roles.train)), **changes)
            for architecture in (architectures or subject.architectures).split(";"):
                key = {"recipe": recipe, "architecture": architecture, "epochs": epochs, "seed": seed}
                if rows.is_done(**key):
                    continue
                if weights:
                    network = load_dense(weights, roles, rows)
                else:
                    network = train_dense(subject, dense_name, roles, rows)
                rows.add(key, measure(network, roles, architecture, changed, seed))


def choose(names: str | None, known: Mapping[str, Any]) -> list[str]:
    """Return names with ; between them as a list, all that are known for None."""
    chosen = names.split(";") if names else list(known)
    for name in chosen:
        if name not in known:
            raise click.UsageError(f"unknown recipe {name!r}{suggest(name, known)}")
    return chosen


def measure(
    dense: nn.Module, roles: DataRoles, architecture: str, recipe: Recipe, seed: int
) -> dict[str, Any]:
    """Prune, fine-tune and judge one network."""
    began = time.process_time()
    wanted = architecture if "," in architecture else float(architecture)
    network = prune(dense, roles, architecture=wanted, method="magnitude", reconstruct=True).network
    *_, last = train_(network, roles, make_task(), recipe, seed=seed, teacher=dense)
    return {
        "macs": count_costs(network, roles.example_input()).macs,
        **judge(network, roles),
        "train_loss": last.metrics["train_loss"],
        "cpu_s": time.process_time() - began,
    }


def load_dense(weights: Path, roles: DataRoles, rows: Rows) -> nn.Module:
    """Return ResNet-20 with the given weights."""
    network = create_network("resnet20")
    load_weights_(network, weights)
    add_dense(network.eval(), roles, rows, "given", 0, 0.0)
    return network


def train_dense(subject: Subject, name: str, roles: DataRoles, rows: Rows, seed: int = 0) -> nn.Module:
    """Return a dense network of a subject, trained if it is not there yet."""
    options = with_classes(subject.network, {}, roles.n_classes)
    network = create_network(subject.network, options, seed=seed)
    of_seed = f"-seed-{seed}" if seed else ""
    path = rows.path.parent / f"dense-{name.replace(' ', '-')}{of_seed}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            epochs, recipe = subject.dense[name]
            changed = replace(recipe, images=round(epochs * len(roles.train)))
            began = time.process_time()
            for _ in train_(network, roles, make_task(), changed, seed=seed):
                pass
            add_dense(network, roles, rows, name, epochs, time.process_time() - began, seed)
            save_weights(network, path, {})
    load_weights_(network, path)
    return network.eval()


def add_dense(
    network: nn.Module,
    roles: DataRoles,
    rows: Rows,
    name: str,
    epochs: float,
    cpu_s: float,
    seed: int = 0,
) -> None:
    """Note what a dense network reaches, once."""
    key = {"recipe": f"dense: {name}", "architecture": "dense", "epochs": epochs, "seed": seed}
    if not rows.is_done(**key):
        macs = count_costs(network, roles.example_input()).macs
        rows.add(key, {"macs": macs, **judge(network, roles), "cpu_s": cpu_s})


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

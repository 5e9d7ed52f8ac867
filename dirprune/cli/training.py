"""From options to a training: the recipe that suits the data, progress, and a file from which it goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click
from torch import nn

from dirprune.cli.options import (
    FINE_TUNING_EPOCHS,
    MAX_EPOCHS,
    RECIPE_NAMES,
    TRAINING_EPOCHS,
    TrainingOptions,
)
from dirprune.cli.printing import TrainingProgress
from dirprune.data import DataRoles
from dirprune.data.sources import FOLDERS, STREAM
from dirprune.identity import digest
from dirprune.kept_training import train_kept_
from dirprune.recipe import Recipe
from dirprune.recipes import CIFAR, CIFAR_FINE_TUNING, IMAGES, IMAGES_FINE_TUNING, for_data_set
from dirprune.tasks import Task

PLAIN = Recipe(images=0)
RECIPES = dict(
    zip(
        RECIPE_NAMES,
        ((PLAIN, PLAIN), (CIFAR, CIFAR_FINE_TUNING), (IMAGES, IMAGES_FINE_TUNING)),
        strict=True,
    )
)
"""By name: how dense networks are trained, and how pruned ones are fine-tuned."""


def train_with_progress_(
    network: nn.Module,
    roles: DataRoles,
    task: Task,
    recipe: Recipe,
    output: Path,
    *,
    seed: int,
    device: str,
    teacher: nn.Module | None = None,
) -> None:
    """Train a network in place, printing progress; a training that was cut off goes on.

    Where it stands is of no use once the result is stored: see `remove_states`. So are those of trainings for
    the same output with other settings, which are named here.

    Args:
        network: As for `train_`, and so are `roles`, `task`, `recipe`, `seed`, `device` and `teacher`.
        output: Where the result is going to lie; where the training stands lies beside it.
    """
    states = [*network.state_dict().values(), *([] if teacher is None else teacher.state_dict().values())]
    weights = [tensor.detach().cpu().numpy() for tensor in states]
    key = digest(*weights, task.loss_identity, asdict(recipe), roles.fingerprint(), seed)[:12]
    checkpoint = output.with_name(f"{output.name}-{key}.state.pt")
    if others := [str(path) for path in _find_states(output) if path != checkpoint]:
        click.echo(f"{', '.join(others)}: of other settings; removed when this training has ended")
    if checkpoint.exists():
        click.echo(f"going on from {checkpoint}")
    progress = TrainingProgress(recipe.images, len(roles.train))
    with _kept_on_interrupt(checkpoint):
        for report in train_kept_(
            network, roles, task, recipe, checkpoint, seed=seed, device=device, teacher=teacher
        ):
            progress.show(report)


def remove_states(output: Path) -> None:
    """Remove what says where trainings for an output stand, whatever their settings: it is stored now."""
    for path in _find_states(output):
        path.unlink(missing_ok=True)


def _find_states(output: Path) -> list[Path]:
    pattern = re.compile(re.escape(output.name) + r"-[0-9a-f]{12}\.state\.pt")
    return sorted(path for path in output.parent.glob("*.state.pt") if pattern.fullmatch(path.name))


def make_recipe(
    options: TrainingOptions,
    dataset: str,
    n_epoch: int,
    *,
    is_fine_tuning: bool = False,
    has_teacher: bool = False,
) -> Recipe:
    """Return how to train: with early stopping and no --epochs, up to `MAX_EPOCHS` epochs.

    Args:
        options: What the user gave.
        dataset: Name of the data set, which decides where no recipe is given.
        n_epoch: Training images in one epoch.
        is_fine_tuning: Whether it begins at a pruned network.
        has_teacher: Whether there is a dense network to learn from.
    """
    default_epochs = FINE_TUNING_EPOCHS if is_fine_tuning else TRAINING_EPOCHS
    epochs = options.epochs or (MAX_EPOCHS if options.early_stopping else default_epochs)
    recipe = for_data_set(RECIPES[options.recipe or _choose_recipe(dataset)][is_fine_tuning], dataset)
    return replace(
        recipe,
        images=max(1, round(epochs * n_epoch)),
        batch_size=options.batch_size or recipe.batch_size,
        distillation=recipe.distillation if has_teacher else 0.0,
        patience=options.early_stopping,
        monitor="val_accuracy",
        monitor_direction="maximize",
        lr=options.lr or recipe.lr,
    )


def _choose_recipe(dataset: str) -> str:
    kind = dataset.partition(":")[0]
    if kind in ("cifar10", "cifar100"):
        return "cifar"
    return "images" if kind in (FOLDERS, STREAM) else "plain"


@contextmanager
def _kept_on_interrupt(checkpoint: Path) -> Iterator[None]:
    """Say on Ctrl-C that the same command goes on, where anything was trained."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoint.exists():
            click.echo(f"kept in {checkpoint}: the training so far; the same command goes on", err=True)
        raise

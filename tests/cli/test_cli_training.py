"""Which recipe the steps of the command line train by."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from dirprune.cli.options import TrainingOptions
from dirprune.cli.study import make_command
from dirprune.cli.study_arguments import Arguments
from dirprune.cli.study_run import change
from dirprune.cli.training import make_recipe

RESNET20 = Path(__file__).parents[2] / "studies" / "resnet20.py"


@pytest.mark.parametrize(
    ("dataset", "given", "optimizer", "lr", "is_augmented"),
    [
        ("digits", {}, "adamw", 4e-3, False),
        ("svhn", {}, "adamw", 4e-3, False),  # mirrored digits are none
        ("cifar10", {}, "sgd", 0.1, True),
        ("stream:224", {}, "sgd", 0.03, True),
        ("folders", {"lr": 0.02}, "sgd", 0.02, True),
        ("cifar100", {"recipe": "plain"}, "adamw", 4e-3, False),
        ("mnist", {"recipe": "images"}, "sgd", 0.03, True),
    ],
)
def test_the_recipe_suits_the_data_unless_one_is_given(
    dataset: str, given: dict[str, object], optimizer: str, lr: float, is_augmented: bool
) -> None:
    recipe = make_recipe(TrainingOptions(**given), dataset, 100)
    assert (recipe.optimizer, recipe.lr, recipe.augments) == (optimizer, lr, is_augmented)
    assert (recipe.images, recipe.distillation) == (2_000, 0)


@pytest.mark.parametrize(("dataset", "flips"), [("svhn", False), ("mnist", False), ("cifar100", True)])
def test_digits_are_not_mirrored_whatever_is_asked_for(dataset: str, flips: bool) -> None:
    recipe = make_recipe(TrainingOptions(recipe="cifar"), dataset, 100)
    assert (recipe.flips, recipe.shift) == (flips, 4)
    declared = runpy.run_path(str(RESNET20), run_name="study")["spec"]
    given = make_command(declared).make_context("study", ["--dataset", dataset])
    study = change(declared, Arguments(**given.params))
    assert (study.data, study.dense.flips, study.fine_tuning.flips) == (dataset, flips, flips)
    assert study.fine_tuning.shift == 4


def test_a_pruned_network_learns_slower_and_from_the_dense_one_where_it_is_at_hand() -> None:
    alone, taught = (
        make_recipe(TrainingOptions(epochs=0.5), "cifar10", 100, is_fine_tuning=True, has_teacher=has)
        for has in (False, True)
    )
    assert (alone.lr, alone.images, alone.distillation) == (0.01, 50, 0)
    assert taught.distillation == 0.9

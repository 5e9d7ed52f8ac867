"""A study whose trials sleep instead of training, so that two cores hold many; see scale_nodes.py."""

import time

import torch
from torch import Tensor, nn

from dirprune.cli.study import study_main
from dirprune.data import DataRoles, make_roles
from dirprune.recipe import Recipe
from dirprune.study.objectives import Objective
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec

SECONDS = 4.0  # of each evaluation


def make_network() -> nn.Module:
    """Return a small network."""
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 1))


def make_data(root: object, *, validation_from: str, seed: int) -> DataRoles:
    """Return a regression on made-up numbers."""
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    targets = inputs.abs().sum(1, keepdim=True)
    parts = (inputs[:500], targets[:500], inputs[500:], targets[500:])
    return make_roles("sleep", *parts, validation_from=validation_from, seed=seed)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss per example, shape (n,)."""
    return (outputs - targets).abs().mean(1)


def evaluate(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """Sleep, then return the mean absolute error."""
    time.sleep(SECONDS)
    return {"mae": float((outputs - targets).abs().mean())}


spec = StudySpec(
    name="sleeping",
    network=make_network,
    data=make_data,
    loss=absolute_error,
    evaluation=evaluate,
    objectives=(Objective("val_mae", "minimize"), Objective("macs", "minimize")),
    reference_point={"val_mae": 10.0},
    space=SearchSpace(methods={"magnitude": {}}, warm_starts=0),
    trials=40,
    epochs=2,
    halving="none",
    dense=Recipe(images=0, batch_size=100),
    dense_epochs=1,
    fine_tuning=Recipe(images=0, batch_size=100),
)

if __name__ == "__main__":
    study_main(spec)

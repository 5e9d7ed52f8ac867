"""Torch's optimizers, and the one of a recipe."""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch import nn

from dirprune.errors import ConfigurationError
from dirprune.recipe import Recipe

Optimizer = TypeVar("Optimizer", bound=torch.optim.Optimizer)


def _without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """Return a kind of optimizer that computes the same and does not load torch.compile.

    Torch wraps these methods for graphs in which they are traced, and the first call of a wrapper imports all
    of the compiler: seconds in every command and every worker that trains. dirprune compiles no training.
    """
    names = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(inspect.unwrap(kind.step))})


SGD = _without_compiler(torch.optim.SGD)
Adam = _without_compiler(torch.optim.Adam)
AdamW = _without_compiler(torch.optim.AdamW)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the recipe's optimizer over the parameters that learn."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not learning:
        raise ConfigurationError("expected a network with parameters that learn, got none with requires_grad")
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        is_nesterov = recipe.momentum > 0
        return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=is_nesterov, fused=True)
    return AdamW(groups, lr=recipe.lr, fused=True)

"""The optimizer of a recipe."""

from __future__ import annotations

import torch
from torch import nn

from dirprune.errors import ConfigurationError
from dirprune.recipe import Recipe


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
        return torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=is_nesterov, fused=True
        )
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)

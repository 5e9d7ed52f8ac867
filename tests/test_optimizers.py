"""Optimizers compute what torch's do, and do not load the compiler for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dirprune import optimizers


@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", {"momentum": 0.9, "nesterov": True, "fused": True}), ("Adam", {}), ("AdamW", {"fused": True})],
)
def test_an_optimizer_steps_and_goes_on_as_torch_has_it(name: str, options: dict[str, Any]) -> None:
    def train(kind: type[torch.optim.Optimizer]) -> list[Tensor]:
        torch.manual_seed(0)
        network, state = nn.Linear(3, 2), None
        for _ in range(2):
            optimizer = kind(network.parameters(), lr=0.1, weight_decay=0.01, **options)  # type: ignore[call-arg]
            if state is not None:
                optimizer.load_state_dict(state)
            for step in range(3):
                optimizer.zero_grad()
                network(torch.full((4, 3), float(step))).square().sum().backward()
                optimizer.step()
            state = optimizer.state_dict()
        return list(network.parameters())

    for ours, expected in zip(
        train(getattr(optimizers, name)), train(getattr(torch.optim, name)), strict=True
    ):
        assert torch.equal(ours, expected)


@pytest.mark.slow
def test_training_loads_no_compiler() -> None:
    code = """
import sys, torch
from dirprune.data import load_data
from dirprune.networks import create_network
from dirprune.recipe import Recipe
from dirprune.tasks import make_task
from dirprune.training import train_
roles = load_data("digits", None)
for optimizer in ("sgd", "adamw"):
    recipe = Recipe(images=256, batch_size=128, optimizer=optimizer)
    for report in train_(create_network("lenet5"), roles, make_task(), recipe, seed=0, device="cpu"):
        pass
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.strip() == "False"

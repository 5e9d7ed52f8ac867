"""What of replaying steps can be seen without a GPU; `benchmarks/gpu_check.py` asks a GPU for the rest."""

from __future__ import annotations

import copy
import gc
import random
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from dirprune.data import make_roles
from dirprune.networks import create_network
from dirprune.recipe import Recipe
from dirprune.replay import Replay, is_known, read_random_states, says_wait
from dirprune.tasks import make_task
from dirprune.training_run import TrainingRun
from dirprune.training_state import Segment


def test_gradients_and_loss_are_those_of_the_batch() -> None:
    network = nn.Linear(3, 2)
    expected = copy.deepcopy(network)
    replay = Replay(network, torch.device("cpu"))
    for seed in range(12):  # as many as a GPU needs before it replays
        batch = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
        loss = replay.set_gradients_(lambda inputs: network(inputs).square().mean(), batch)
        expected.zero_grad()
        own = expected(batch).square().mean()
        own.backward()
        assert torch.equal(loss, own)
        assert not loss.requires_grad
        for one, other in zip(network.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)
    assert not replay.recordings


def test_the_word_of_torch_that_it_looks_for_waiting_is_no_waiting() -> None:
    announced = "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing"
    assert not says_wait(f"{announced} operations (Triggered internally at Module.cpp:1055.)")
    assert says_wait("called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp:303.)")


@pytest.mark.parametrize(
    ("draw", "is_seen"),
    [
        (lambda: nn.functional.dropout(torch.ones(3)), True),
        (lambda: random.random() < 0.1, True),
        (lambda: np.random.rand(), True),
        (lambda: np.random.normal(), True),
        (lambda: torch.rand(3, generator=torch.Generator()), False),  # of its own
        (lambda: nn.functional.relu(torch.ones(3)), False),
    ],
)
def test_it_is_seen_that_a_step_draws_random_numbers(draw: Callable[[], object], is_seen: bool) -> None:
    before = read_random_states()
    draw()
    assert (read_random_states() != before) == is_seen


class _Counting(nn.Module):
    """Does something else from the third step on."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.step += 1
        return inputs if self.step < 3 else 2 * inputs


def test_only_networks_of_modules_that_are_known_are_replayed_unasked() -> None:
    assert all(is_known(create_network(name)) for name in ("lenet5", "resnet20", "torchvision/resnet18"))
    assert not is_known(nn.Sequential(nn.Linear(3, 2), _Counting()))


def test_a_training_that_has_ended_is_freed_at_once() -> None:
    images = torch.randint(0, 256, (40, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    roles = make_roles("noise", images[:30], torch.arange(30) % 2, images[30:], torch.arange(10) % 2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    recipe = Recipe(images=len(roles.train), batch_size=4)

    def train() -> weakref.ref[TrainingRun]:
        run = TrainingRun(network, roles, make_task(), recipe, 0, torch.device("cpu"), None)
        assert run.take_steps_(Segment(0, recipe.images), wants_pause=lambda: False)
        return weakref.ref(run)

    train()  # torch keeps the frames of a process's first optimizer
    gc.disable()
    try:
        assert train()() is None
    finally:
        gc.enable()

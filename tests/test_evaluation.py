from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dirprune.data.roles import DataRoles, Split, make_roles
from dirprune.errors import ConfigurationError, DataError
from dirprune.evaluation import BATCH_SIZE, check_fit, evaluate
from dirprune.tasks import make_task


def _roles(inputs: Tensor, targets: Tensor) -> DataRoles:
    return make_roles("toy", inputs, targets, inputs[:20], targets[:20], mean=(0.5,), std=(0.25,))


def _vectors(n_examples: int = 40) -> DataRoles:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(n_examples, 3, generator=generator)
    return _roles(inputs, inputs.sum(1, keepdim=True))


def test_split_in_batches_gives_the_metrics_of_the_whole() -> None:
    roles = _vectors(5 * BATCH_SIZE)
    network = nn.Linear(3, 1)
    split = roles.train
    assert len(split) > 2 * BATCH_SIZE
    assert len(split) % BATCH_SIZE > 0
    with torch.no_grad():
        by_hand = (network((split.inputs - 0.5) / 0.25) - split.targets).square().mean().item()
    metrics = evaluate(network, split, roles, make_task("mse", "mse"), prefix="any_")
    assert metrics == pytest.approx({"any_loss": by_hand, "any_mse": by_hand})


class LargestMade(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that is made."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.largest = max(self.largest, made.numel())
        return made


def test_named_losses_and_metrics_are_those_of_the_whole_without_holding_it() -> None:
    generator = torch.Generator().manual_seed(1)
    inputs, classes = torch.rand(5 * BATCH_SIZE, 3, generator=generator), 64
    targets = torch.randint(classes, (len(inputs),), generator=generator)
    roles = _roles(inputs, targets)
    network = nn.Linear(3, classes)
    with LargestMade() as made:
        metrics = evaluate(network, roles.train, roles, make_task())
    assert made.largest == BATCH_SIZE * classes
    with torch.no_grad():
        outputs = network((roles.train.inputs - 0.5) / 0.25)
    loss = nn.functional.cross_entropy(outputs.double(), roles.train.targets).item()
    assert metrics["val_loss"] == pytest.approx(loss, rel=1e-6)
    assert metrics["val_accuracy"] == (outputs.argmax(1) == roles.train.targets).double().mean().item()


@pytest.mark.parametrize(
    ("loss", "n_outputs"), [("cross_entropy", 2), ("cross_entropy", 4), ("mse", 3), (nn.MSELoss(), 4)]
)
def test_only_cross_entropy_asks_for_an_output_for_each_class(loss: Any, n_outputs: int) -> None:
    inputs = torch.rand(40, 3)
    roles = replace(_roles(inputs, torch.arange(40) % 3), n_classes=3)
    network, task = nn.Sequential(nn.Linear(3, n_outputs), nn.Dropout()).train(), make_task(loss)
    if loss == "cross_entropy":
        message = f"with 3 outputs, one for each class of toy, got {n_outputs}; try another last"
        with pytest.raises(ConfigurationError, match=message):
            check_fit(network, roles, task)
    else:
        check_fit(network, roles, task)
    assert network[1].training


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(4, 1), r"^expected a network that accepts inputs of shape \(2, 3\), got RuntimeError: "),
        (nn.LSTM(3, 1), "^expected a network that returns one tensor, got tuple; try one that returns only"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_fit(network, _vectors(), make_task("mse", "mse"))


def test_segmentation_has_a_loss_and_an_accuracy_over_its_pixels() -> None:
    images = torch.arange(40 * 8 * 8).reshape(40, 1, 8, 8).remainder(256).to(torch.uint8)
    maps = (images[:, 0] > 127).long()

    class Threshold(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([-images, images], dim=1)

    roles = _roles(images, maps)
    metrics = evaluate(Threshold(), roles.validation, roles, make_task())
    assert metrics["val_accuracy"] == 1.0
    assert 0 < metrics["val_loss"] < 1


class Shaped(nn.Module):
    """Gives outputs of any kind and remembers them, as numbers and by their lives."""

    def __init__(self, shape: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shape = shape
        self.copies: list[Tensor] = []
        self.lives: list[weakref.ref[Tensor]] = []
        self.n_most_alive = 0

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.shape(inputs)
        self.copies.append(outputs.clone(memory_format=torch.preserve_format))
        self.n_most_alive = max(self.n_most_alive, sum(life() is not None for life in self.lives))
        self.lives.append(weakref.ref(outputs))
        return outputs


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: x.sum(1),
        lambda x: x.half(),
        lambda x: (x[:, :, None, None] + torch.rand(3, 4, 5)).contiguous(memory_format=torch.channels_last),
        lambda x: x.repeat_interleave(2, 0),
    ],
    ids=["a number", "half precision", "maps with channels innermost", "two rows for each"],
)
def test_outputs_are_those_of_all_batches_and_held_once(shape: Callable[[Tensor], Tensor]) -> None:
    roles = _vectors(3 * BATCH_SIZE)
    network = Shaped(shape)
    given = []

    def look(outputs: Tensor, targets: Tensor) -> dict[str, float]:
        given.append((outputs, targets))
        return {}

    task = make_task(lambda outputs, targets: outputs.mean(), look)
    loss = evaluate(network, roles.train, roles, task)["val_loss"]
    outputs, targets = given[0]
    assert len(network.copies) > 2
    expected = torch.cat([copy.float() for copy in network.copies])
    assert torch.equal(outputs, expected)
    assert outputs.stride() == expected.stride()
    assert torch.equal(targets, roles.train.targets)
    assert loss == float(expected.mean() * len(targets)) / len(targets)
    assert network.n_most_alive <= 1


def test_modes_of_all_modules_and_gradients_are_as_before() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    network.train()
    network[1].eval()
    statistics = network[1].running_mean.clone()
    roles = _vectors()
    task = make_task("mse", "mse")
    first = evaluate(network, roles.validation, roles, task)
    assert first == evaluate(network, roles.validation, roles, task), "dropout was active"
    assert [module.training for module in network] == [True, False, True, True]
    assert torch.equal(statistics, network[1].running_mean)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_modes_are_restored_when_the_network_raises() -> None:
    network = nn.Linear(2, 1)
    roles = _vectors()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate(network, roles.validation, roles, make_task("mse", "mse"))
    assert network.training


@pytest.mark.parametrize("name", ["accuracy", "top5_accuracy"])
@pytest.mark.parametrize("value", [93.0, -0.1])
def test_accuracy_that_is_not_a_fraction_is_refused(name: str, value: float) -> None:
    roles = _vectors()
    task = make_task("mse", lambda outputs, targets: {name: value})
    with pytest.raises(
        ConfigurationError, match=rf"^{name} must be a fraction in \[0, 1\], got .*93 becomes"
    ):
        evaluate(nn.Linear(3, 1), roles.validation, roles, task)


def test_empty_split_is_refused() -> None:
    roles = _vectors()
    empty = Split(torch.empty(0, 3), torch.empty(0, 1), torch.empty(0, dtype=torch.int64), "test")
    with pytest.raises(DataError, match=r"^expected at least one example to compute test_loss, got an empty"):
        evaluate(nn.Linear(3, 1), empty, roles, make_task("mse", "mse"), prefix="test_")

"""Networks that once led the engines astray: writing in place, statistics of the batch, squeezed axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dirprune.errors import ConfigurationError, ImportanceError
from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.importance import ScoringContext
from dirprune.importance.cache import context_key
from dirprune.importance.coalitions import open_values
from dirprune.importance.coalitions.engines import ContributionValues
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.importance.fresh_norm import FreshNorm, with_fresh_norms
from dirprune.tasks import Task, make_task
from tests.importance.cases import identity, make_context, make_split
from tests.networks_for_tests import SmallLeNet


def make(
    network: nn.Module, layers: tuple[str, str], n_channels: int, shape: tuple[int, ...]
) -> ScoringContext:
    """Return a context with one group, which the first layer makes and the second takes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    inputs = torch.randn(9, *shape, generator=generator)
    targets = torch.randint(0, 3, (9,), generator=generator)
    own = tuple(range(n_channels))
    first, second = layers
    grouping = Grouping((ChannelGroup(first, n_channels, (Slot(first, own),), (Slot(second, own),)),))
    return ScoringContext(network.eval(), grouping, make_split(inputs, targets), identity, make_task())


def draw(n_coalitions: int, n_channels: int) -> np.ndarray:
    return np.random.default_rng(0).random((n_coalitions, n_channels)) < 0.5


class AddsInPlace(nn.Module):
    """Adds the branch into the shortcut's own memory."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut, self.first, self.second = (
            nn.Conv2d(2, 4, 1),
            nn.Conv2d(2, 5, 3, padding=1),
            nn.Conv2d(5, 4, 3, padding=1),
        )
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        shortcut = torch.tanh(self.shortcut(images))
        branch = torch.tanh(self.second(F.relu(self.first(images))))
        return self.head(F.relu_(shortcut.add_(branch)).mean((2, 3)))


class NormalisesByBatch(nn.Module):
    """Has a batch norm without stored statistics before the group."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, track_running_stats=False)
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(F.relu(self.first(self.norm(images)))).mean((2, 3))


class CentresBatch(NormalisesByBatch):
    """Subtracts the mean over the batch, whatever its size."""

    def forward(self, images: Tensor) -> Tensor:
        return self.second(F.relu(self.first(images - images.mean(0)))).mean((2, 3))


class Squeezes(nn.Module):
    """Drops all axes of length one, that of the batch too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(torch.sigmoid(self.second(F.relu(self.first(images)))), 1)
        return pooled.squeeze().reshape(-1, 3)


@pytest.mark.parametrize("kind", [AddsInPlace, NormalisesByBatch, CentresBatch, Squeezes])
@pytest.mark.parametrize("is_recalibrated", [False, True])
def test_values_do_not_depend_on_what_is_asked_at_once_or_before(
    kind: type[nn.Module], is_recalibrated: bool
) -> None:
    context = make(kind(), ("first", "second"), 5, (2, 6, 6))
    coalitions = draw(6, 5)
    judged = with_fresh_norms(context, are_all=is_recalibrated)
    expected = MaskedValues(judged, "first").evaluate(coalitions)
    for memory_mb in (1, 64):
        values = open_values(
            dataclasses.replace(context, memory_mb=memory_mb), "first", is_recalibrated=is_recalibrated
        )
        assert isinstance(values, MaskedValues) is (kind is CentresBatch)
        one_by_one = [values.evaluate(coalition[None])[0] for coalition in coalitions]
        np.testing.assert_allclose(one_by_one, expected, rtol=1e-5)
        np.testing.assert_allclose(values.evaluate(coalitions), expected, rtol=1e-5)


def test_one_coalition_on_one_example_at_a_time_is_right_where_axes_are_squeezed() -> None:
    context = make(Squeezes(), ("first", "second"), 5, (2, 6, 6))
    coalitions = draw(3, 5)
    values = open_values(context, "first")
    assert isinstance(values, ContributionValues)
    expected = values.evaluate(coalitions)
    values._kept.clear()
    values.memory = 4 * values.shared
    assert values.chunk_size == 1
    np.testing.assert_allclose([values.evaluate(row[None])[0] for row in coalitions], expected, rtol=1e-5)


def test_what_preparing_needs_bounds_the_chunk_even_where_little_is_kept() -> None:
    network = nn.Sequential(nn.Linear(8, 50), nn.ReLU(), nn.Linear(50, 1000), nn.Linear(1000, 3))
    values = open_values(make(network, ("0", "2"), 50, (8,)), "0")
    assert isinstance(values, ContributionValues)
    assert values.is_linear_to_the_end
    assert values.shared >= 51 * 1000 * 4


def test_a_norm_under_two_names_is_recalibrated_under_both() -> None:
    network = SmallLeNet()
    network.bn_again = network.bn1
    fresh = with_fresh_norms(dataclasses.replace(make_context(SmallLeNet), network=network)).network
    assert isinstance(fresh.bn1, FreshNorm)
    assert fresh.bn_again is fresh.bn1


class Normalises(nn.Module):
    """Activates behind a batch norm that another class may do in one."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(2, 5, 3), norm(5), nn.Conv2d(5, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.norm(self.first(images))).mean((2, 3))


def plain(n_channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(n_channels), nn.ReLU())


@pytest.mark.parametrize("is_recalibrated", [False, True])
def test_a_batch_norm_that_activates_is_worth_what_one_with_an_activation_behind_it_is(
    is_recalibrated: bool,
) -> None:
    norm_act = pytest.importorskip("timm.layers.norm_act")
    parts, whole = (
        make(Normalises(norm), ("first", "second"), 5, (2, 6, 6)) for norm in (plain, norm_act.BatchNormAct2d)
    )
    coalitions = draw(6, 5)
    expected = open_values(parts, "first", is_recalibrated=is_recalibrated).evaluate(coalitions)
    found = open_values(whole, "first", is_recalibrated=is_recalibrated)
    assert not isinstance(found, MaskedValues)
    np.testing.assert_allclose(found.evaluate(coalitions), expected, rtol=1e-5)
    masked = MaskedValues(with_fresh_norms(whole, are_all=is_recalibrated), "first")
    np.testing.assert_allclose(masked.evaluate(coalitions), expected, rtol=1e-5)


class Doubling(nn.BatchNorm2d):
    """A batch norm with a forward that nobody knows."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


def test_a_batch_norm_with_a_forward_of_its_own_is_refused_by_name_where_statistics_are_taken_anew() -> None:
    context = make(Normalises(Doubling), ("first", "second"), 5, (2, 6, 6))
    open_values(context, "first").evaluate(draw(3, 5))
    with pytest.raises(
        ConfigurationError, match=r"got .*test_hard_networks\.Doubling with a forward of its own"
    ):
        open_values(context, "first", is_recalibrated=True)


def test_accuracy_of_outputs_that_are_not_numbers_is_an_error_as_their_loss_is() -> None:
    context = make(Squeezes(), ("first", "second"), 5, (2, 6, 6))
    context.network.second.bias.data[0] = float("nan")
    for value in ("loss", "accuracy"):
        with pytest.raises(ImportanceError, match="finite"):
            open_values(context, "first", value=value).evaluate(draw(3, 5))


def test_targets_that_are_probabilities_of_classes_are_judged_as_the_task_does() -> None:
    context = make(Squeezes(), ("first", "second"), 5, (2, 6, 6))
    split = context.calibration
    soft = make_split(split.inputs, F.one_hot(split.targets, 3).float())
    hard = open_values(context, "first").evaluate(draw(4, 5))
    found = open_values(dataclasses.replace(context, calibration=soft), "first").evaluate(draw(4, 5))
    np.testing.assert_allclose(found, hard, rtol=1e-5)


def test_an_average_loss_of_the_callers_own_is_judged_coalition_by_coalition() -> None:
    def mean_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    context = make(Squeezes(), ("first", "second"), 5, (2, 6, 6))
    task: Task = make_task(mean_loss)
    expected = open_values(context, "first").evaluate(draw(4, 5))
    found = open_values(dataclasses.replace(context, task=task), "first").evaluate(draw(4, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


class Tempered(Squeezes):
    """Divides by a plain number that no weight tells."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / self.temperature


def test_plain_attributes_of_modules_are_a_part_of_the_key_and_their_mode_is_not() -> None:
    cold, warm = (make(Tempered(t), ("first", "second"), 5, (2, 6, 6)) for t in (1.0, 4.0))
    key = context_key(cold)
    assert key != context_key(warm)
    cold.network.train()
    assert key == context_key(cold)

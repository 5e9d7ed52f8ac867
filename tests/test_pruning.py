"""The way from a dense network to a compact one."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dirprune.architecture import Architecture
from dirprune.data.roles import DataRoles, Split, make_roles
from dirprune.errors import ArchitectureError, ConfigurationError, ImportanceError
from dirprune.importance import ScoreCache, create, list_methods
from dirprune.importance.untouched import Fingerprint
from dirprune.pruning import prune, recalibrate_
from dirprune.surgery import compact
from dirprune.tracing import find_groups
from tests.importance.cases import create_quickly
from tests.networks_for_tests import SmallLeNet


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module")
def roles() -> DataRoles:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (260, 1, 14, 14), generator=rng, dtype=torch.uint8)
    labels = torch.arange(260) % 3
    return make_roles(
        "noise", images[:200], labels[:200], images[200:], labels[200:], n_classes=3, mean=(0.5,), std=(0.25,)
    )


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallLeNet()


def test_pruned_network_has_the_best_channels_and_new_statistics(
    network: nn.Module, roles: DataRoles
) -> None:
    pruned = prune(network, roles, architecture="2,3,4", method="magnitude")
    assert str(pruned.architecture) == "2-3-4"
    assert {name: len(kept) for name, kept in pruned.kept.items()} == {"conv1": 2, "conv2": 3, "linear1": 4}
    for name, kept in pruned.kept.items():
        assert set(kept) == set(pruned.scores[name].topk(len(kept)).indices.tolist())
    example = roles.example_input()
    expected = compact(copy.deepcopy(network).eval(), find_groups(network, example), pruned.kept, example)
    assert not torch.allclose(expected(example), pruned.network(example), atol=1e-3)
    recalibrate_(expected, roles.calibration, roles.normalise)
    torch.testing.assert_close(expected(example), pruned.network(example))
    assert not any(module.training for module in pruned.network.modules())


def test_network_of_the_caller_is_left_untouched(network: nn.Module, roles: DataRoles) -> None:
    network.train()
    before = Fingerprint.of(network)
    pruned = prune(network, roles, architecture=0.5, method="taylor")
    assert before.difference(network) is None
    with torch.no_grad():
        for parameter in pruned.network.parameters():
            parameter.zero_()
    assert before.difference(network) is None
    assert all(parameter.requires_grad for parameter in pruned.network.parameters())


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (Architecture({"conv1": 2, "conv2": 3, "linear1": 4}), "2-3-4"),
        ({"conv2": 3}, "4-3-8"),
        ({"linear1": 1, "conv1": 2}, "2-6-1"),
        ("1,1,1", "1-1-1"),
        (0.5, "2-3-4"),
        (1.0, "4-6-8"),
        ([2, 3, 4], "2-3-4"),
    ],
)
def test_architecture_can_be_said_in_several_ways(
    network: nn.Module, roles: DataRoles, architecture: Any, expected: str
) -> None:
    pruned = prune(network, roles, architecture=architecture, method="magnitude")
    assert str(pruned.architecture) == expected
    assert pruned.network(roles.example_input()).shape == (2, 3)


def test_kept_indices_can_be_given_instead(network: nn.Module, roles: DataRoles) -> None:
    pruned = prune(network, roles, kept={"conv1": [3, 0]})
    assert pruned.kept == {"conv1": [0, 3], "conv2": list(range(6)), "linear1": list(range(8))}
    assert str(pruned.architecture) == "2-6-8"
    assert pruned.scores == {}
    assert torch.equal(pruned.network.conv1.weight, network.conv1.weight[[0, 3]])  # type: ignore[union-attr,index]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either an architecture or kept indices, got neither"),
        ({"architecture": 0.5, "kept": {"conv1": [0]}}, "either an architecture or kept indices"),
        ({"architecture": {"conv3": 2}}, "unknown channel group 'conv3'; did you mean"),
        ({"kept": {"conv3": [0]}}, "unknown channel group 'conv3'; did you mean"),
        ({"kept": {"conv1": []}}, "distinct channels of 'conv1' between 0 and 3, at least one, got []"),
        ({"kept": {"conv1": [4]}}, "distinct channels of 'conv1' between 0 and 3, at least one, got [4]"),
        (
            {"kept": {"conv1": [0, 0]}},
            "distinct channels of 'conv1' between 0 and 3, at least one, got [0, 0]",
        ),
        ({"architecture": {"conv1": 5}}, "conv1"),
        ({"architecture": {"conv1": 0}}, "conv1"),
        ({"architecture": 1.5}, "keep ratio must be in (0, 1], got 1.5"),
        ({"architecture": "1,2"}, "expected 3 numbers"),
        ({"architecture": [1, 2]}, "expected 3 numbers"),
        ({"architecture": [0.5, 2, 3]}, "expected a whole number in 1..4 for conv1, got '0.5'"),
    ],
)
def test_architecture_that_does_not_fit_is_refused(
    network: nn.Module, roles: DataRoles, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArchitectureError, match=re.escape(message)):
        prune(network, roles, method="magnitude", **arguments)


def test_unknown_method_is_refused(network: nn.Module, roles: DataRoles) -> None:
    with pytest.raises(ImportanceError, match="did you mean 'taylor'"):
        prune(network, roles, architecture=0.5, method="tailor")


def test_method_may_be_an_instance_and_scores_come_from_the_cache(
    network: nn.Module, roles: DataRoles, tmp_path: Path
) -> None:
    first = prune(network, roles, architecture=0.5, method="fisher", cache=ScoreCache(tmp_path))
    again = prune(network, roles, architecture=0.5, method=create("fisher"), cache=ScoreCache(tmp_path))
    assert (first.was_cached, again.was_cached) == (False, True)
    assert first.kept == again.kept


@pytest.mark.parametrize("name", list_methods())
def test_pruning_reads_no_validation_and_no_test_example(
    network: nn.Module, roles: DataRoles, name: str
) -> None:
    def spoil(split: Split) -> Split:
        return Split(
            torch.full(split.inputs.shape, float("nan")), split.targets * 0 - 99, split.indices * 0, "test"
        )

    spoilt = dataclasses.replace(roles, validation=spoil(roles.validation), test=spoil(roles.test))
    expected = prune(network, roles, architecture=0.5, method=create_quickly(name))
    pruned = prune(network, spoilt, architecture=0.5, method=create_quickly(name))
    for group, scores in expected.scores.items():
        assert torch.equal(scores, pruned.scores[group])
    for key, value in expected.network.state_dict().items():
        assert torch.equal(value, pruned.network.state_dict()[key])


def make_normalised_network() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))


def make_inputs(n_examples: int) -> Split:
    inputs = torch.randn(n_examples, 3, generator=torch.Generator().manual_seed(0)) * 3 + 5
    return Split(inputs, torch.zeros(n_examples), torch.arange(n_examples), "train")


def identity(inputs: Tensor) -> Tensor:
    return inputs


@pytest.mark.parametrize("batch_size", [7, 32, 500])
def test_recalibrated_statistics_are_those_of_all_calibration_inputs_however_few_go_at_once(
    batch_size: int,
) -> None:
    network, split = make_normalised_network().eval(), make_inputs(1001)
    recalibrate_(network, split, identity, batch_size=batch_size)  # 500: three batches of 333 or 334
    torch.testing.assert_close(network[0].running_mean, split.inputs.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(network[0].running_var, split.inputs.var(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("batch_size", [25, 300])
def test_recalibrated_statistics_of_a_batch_norm_used_twice_are_those_of_both_uses(batch_size: int) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.unused = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

        def forward(self, images: Tensor) -> Tensor:
            self.norm(images)
            return self.norm(images[:, :, :2] + 3)

    images = torch.randn(300, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    images += torch.linspace(0, 10, 300)[:, None, None, None]  # unlike values, images lie far apart
    network = Twice()
    recalibrate_(
        network, Split(images, torch.zeros(300), torch.arange(300), "train"), identity, batch_size=batch_size
    )
    seen = torch.cat([images.transpose(0, 1).flatten(1), images[:, :, :2].transpose(0, 1).flatten(1) + 3], 1)
    torch.testing.assert_close(network.norm.running_mean, seen.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(network.norm.running_var, seen.var(1), rtol=1e-5, atol=0)
    assert network.unused.running_mean.tolist() == [0, 0]
    assert network.unused.running_var.tolist() == [1, 1]


@pytest.mark.parametrize("is_training", [True, False])
def test_recalibration_leaves_modes_momenta_and_weights(is_training: bool) -> None:
    network = make_normalised_network().train(is_training)
    network[1].train(not is_training)
    network[0].momentum = 0.3
    weights = copy.deepcopy(list(network.parameters()))
    recalibrate_(network, make_inputs(20), identity)
    assert (network.training, network[0].training, network[1].training) == (
        is_training,
        is_training,
        not is_training,
    )
    assert network[0].momentum == 0.3
    assert all(torch.equal(old, new) for old, new in zip(weights, network.parameters(), strict=True))


@pytest.mark.parametrize(("size", "expected"), [(32, [300, 300]), (224, [100] * 6)])
def test_recalibration_takes_fewer_images_at_once_only_where_they_are_large(
    size: int, expected: list[int]
) -> None:
    inputs = torch.zeros(1, 3, size, size, dtype=torch.uint8).expand(600, -1, -1, -1)
    n_at_once = []

    def shrink(images: Tensor) -> Tensor:
        n_at_once.append(len(images))
        return images[:, :, 0, 0].float()

    split = Split(inputs, torch.zeros(600), torch.arange(600), "train")
    recalibrate_(make_normalised_network(), split, shrink)
    assert n_at_once == expected


def test_recalibration_that_ran_out_of_memory_begins_again_with_fewer_images(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def take_few(inputs: Tensor) -> Tensor:
        if len(inputs) > 250 and inputs[0, 0] != split.inputs[0, 0]:  # the second batch
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inputs

    network, expected, split = make_normalised_network(), make_normalised_network(), make_inputs(1001)
    recalibrate_(expected, split, identity, batch_size=250)
    recalibrate_(network, split, take_few)
    assert torch.equal(network[0].running_mean, expected[0].running_mean)
    assert torch.equal(network[0].running_var, expected[0].running_var)
    assert [record.message for record in caplog.records] == [
        "out of memory: batch-norm statistics from 250 images at once"
    ]
    with pytest.raises(torch.OutOfMemoryError):
        recalibrate_(network, split, fail_always)


def fail_always(inputs: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_network_without_batch_norm_is_not_run() -> None:
    def fail(inputs: Tensor) -> Tensor:
        raise AssertionError("the network ran")

    network = nn.Sequential(nn.Linear(3, 2)).train()
    recalibrate_(network, make_inputs(20), fail)
    assert network.training


def test_a_network_without_a_group_to_cut_is_refused_with_the_reasons(roles: DataRoles) -> None:
    with pytest.raises(ConfigurationError, match=r"got none \(1: it has a single channel\)"):
        prune(
            nn.Sequential(nn.Flatten(), nn.Linear(196, 1), nn.Linear(1, 3)),
            roles,
            architecture=0.5,
            method="random",
        )

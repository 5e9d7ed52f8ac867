"""ResNets and VGG-16 for CIFAR: their costs, their channel groups, and published weights."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from dirprune.cost import count_costs
from dirprune.data import load_data
from dirprune.errors import ConfigurationError
from dirprune.evaluation import evaluate
from dirprune.networks import VGG16, ResNetCifar, create_network, load_weights_, read_state_dict
from dirprune.tasks import make_task
from dirprune.tracing import find_groups

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "cifar-pretrained"


@pytest.mark.parametrize(
    ("name", "macs", "parameters"),
    [
        ("resnet20", 40_551_040, 269_722),
        ("resnet32", 68_862_592, 464_154),
        ("resnet44", 97_174_144, 658_586),
        ("resnet56", 125_485_696, 853_018),
        ("resnet110", 252_887_680, 1_727_962),
        ("vgg16", 313_463_808, 14_990_922),
        ("wrn28_10", 5_243_328_768, 36_479_194),
    ],
)
def test_costs_are_those_of_the_literature(name: str, macs: int, parameters: int) -> None:
    costs = count_costs(create_network(name), torch.zeros(1, 3, 32, 32))
    assert (costs.macs, costs.parameters) == (macs, parameters)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("resnet20", 3),
        *(pytest.param(f"resnet{6 * n + 2}", n, marks=pytest.mark.slow) for n in (5, 7, 9, 18)),
    ],
)
def test_all_inner_channels_are_groups_and_the_stem_is_refused_with_a_reason(name: str, depth: int) -> None:
    grouping = find_groups(create_network(name, seed=0), torch.zeros(2, 3, 32, 32))
    inner = [f"layer{stage}.{block}.conv1" for stage, block in itertools.product((1, 2, 3), range(depth))]
    assert list(grouping.names) == inner
    assert list(grouping.n_channels.values()) == [16] * depth + [32] * depth + [64] * depth
    assert list(grouping.refused) == ["conv1"]
    assert "masked and compact outputs differ" in grouping.refused["conv1"]


def test_every_width_of_vgg16_is_a_group() -> None:
    widths = tuple(range(4, 18))  # small and all different, so that nothing can be mistaken
    grouping = find_groups(create_network("vgg16", {"widths": widths}, seed=0), torch.zeros(2, 3, 32, 32))
    assert tuple(grouping.n_channels.values()) == widths
    assert grouping.refused == {}


def test_a_shortcut_that_halves_the_resolution_takes_every_second_pixel_between_channels_of_zeros() -> None:
    network = ResNetCifar(8).eval()
    block = network.layer2[0]
    nn.init.zeros_(block.bn2.weight)  # nothing but the shortcut is left
    images = torch.rand(2, 16, 6, 6)
    expected = torch.zeros(2, 32, 3, 3)
    expected[:, 8:24] = images[:, :, ::2, ::2]
    assert torch.equal(block(images), expected)


def test_a_pruned_vgg16_costs_what_dirichlet_pruning_reports() -> None:
    widths = (34, 34, 60, 60, 70, 101, 97, 88, 95, 85, 86, 67, 61, 55)
    costs = count_costs(VGG16(widths), torch.zeros(1, 3, 32, 32))
    assert costs.macs == pytest.approx(40.94e6, abs=0.005e6)
    assert costs.parameters == pytest.approx(0.638e6, abs=0.0005e6)


def test_vgg16_normalises_before_it_activates_and_ends_in_two_linear_layers() -> None:
    network = VGG16((2,) * 14).eval()
    layers = [type(layer).__name__ for layer in network.features]
    assert layers[:7] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"]
    assert [layers.count(name) for name in ("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d")] == [13, 13, 13, 5]
    network.features = nn.Identity()
    hidden = torch.randn(5, 2)
    assert torch.equal(network(hidden), network.linear2(network.linear1(hidden)))


def test_weights_saved_in_data_parallel_under_state_dict_load(tmp_path: Path) -> None:
    source, target = (create_network("resnet20", seed=seed) for seed in (0, 1))
    saved = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": saved, "best_prec1": 91.7}, tmp_path / "resnet20.th")
    load_weights_(target, tmp_path / "resnet20.th")
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def load_published(name: str) -> tuple[nn.Module, Path]:
    """Return a network with its published weights, and their file."""
    files = list(PUBLISHED.glob(f"{name}-*.th"))
    if not files:
        pytest.skip("needs the published weights: no ../shared/data/cifar-pretrained beside the repository")
    network = create_network(name, seed=0)
    load_weights_(network, files[0])
    return network, files[0]


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_published_weights_load(name: str) -> None:
    network, file = load_published(name)
    last = network.layer3[-1].conv2.weight
    assert torch.equal(last, read_state_dict(file)[f"layer3.{len(network.layer3) - 1}.conv2.weight"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "accuracy"), [("resnet20", 0.9173), ("resnet56", 0.9339)])
def test_published_weights_have_their_published_accuracy(
    cifar10_root: Path, name: str, accuracy: float
) -> None:
    network, _ = load_published(name)
    roles = load_data("cifar10", cifar10_root)
    assert len(roles.test) == 10_000
    metrics = evaluate(network, roles.test, roles, make_task(), prefix="test_")
    assert metrics["test_accuracy"] == pytest.approx(accuracy, abs=2e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNetCifar(18), r"^a ResNet for CIFAR has 6 \* n \+ 2 layers, got a depth of 18; try 20"),
        (lambda: ResNetCifar(2), "got a depth of 2"),
        (lambda: VGG16((64, 64)), r"^VGG-16 expects 14 positive widths, got \(64, 64\); try 64,64,128"),
        (lambda: VGG16((0,) * 14), "VGG-16 expects 14 positive widths"),
    ],
)
def test_what_cannot_be_built_is_one_clear_line(build, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build()


def test_every_channel_of_a_wide_resnet_but_its_output_can_be_cut() -> None:
    options = {"depth": 16, "widen": 2}
    grouping = find_groups(create_network("wrn28_10", options, seed=0), torch.zeros(2, 3, 32, 32))
    assert grouping.refused == {}
    inner = [f"layer{stage}.{block}.conv1" for stage, block in itertools.product((1, 2, 3), (0, 1))]
    assert set(inner) < set(grouping.names)
    assert len(grouping.names) == len(inner) + 4  # the stem's, and the coupled outputs of three stages

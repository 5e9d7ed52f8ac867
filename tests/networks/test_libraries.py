"""Networks of torchvision and timm by name: with fresh weights, cut, and stored so that they come back."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dirprune.architecture import Architecture
from dirprune.cost import CostModel, count_costs
from dirprune.deadline import read_processor_time
from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.identity import identify
from dirprune.networks import create_network
from dirprune.records.models import load_model, save_model
from dirprune.surgery import check_masked_equals_compact, compact, randomised_copy
from dirprune.tracing import find_groups


def test_a_network_of_torchvision_takes_our_name_of_the_classes() -> None:
    network = create_network("torchvision/mobilenet_v3_small", {"n_classes": 7}, seed=0)
    assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_networks_with_auxiliary_outputs_have_one_output_in_training_too() -> None:
    network = create_network("torchvision/googlenet", {"n_classes": 3}).train()
    assert isinstance(network(torch.zeros(2, 3, 64, 64)), torch.Tensor)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torchvision/resnet5", {}, "did you mean 'resnet50'"),
        ("torchvision/resnet18", {"nclasses": 3}, "unexpected keyword argument 'nclasses'; n_classes is one"),
        ("torchvision", {}, "and <library>/<name> of torchvision or timm"),
    ],
)
def test_what_torchvision_does_not_have_is_one_clear_line(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refusal:
        create_network(name, options)
    assert "\n" not in str(refusal.value)


def test_a_library_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigurationError, match="pip install timm"):
        create_network("timm/resnet26d")


def check_cut_and_stored(folder: Path, name: str, grouping: Grouping, network: nn.Module) -> None:
    """Check that a half of a network with five outputs is smaller and comes back by its name."""
    example = torch.rand(2, 3, 64, 64)
    kept = {name: range(n) for name, n in Architecture.uniform(grouping, 0.5).items()}
    small = compact(network, grouping, kept, example)
    assert count_costs(small, example).macs < 0.6 * count_costs(network, example).macs
    save_model(
        folder,
        small,
        architecture={name: len(channels) for name, channels in kept.items()},
        kept=kept,
        base={**identify(name), "options": {"n_classes": 5}},
        input_shape=(3, 64, 64),
        normalisation={"mean": (0.0,), "std": (1.0,)},
        metrics={},
    )
    again = load_model(folder)
    assert again(example).shape == (2, 5)
    torch.testing.assert_close(again(example), small(example))


def test_a_cut_network_of_torchvision_is_stored_and_comes_back(tmp_path: Path) -> None:
    name = "torchvision/mobilenet_v3_small"
    network = create_network(name, {"n_classes": 5}, seed=1).eval()
    grouping = find_groups(network, torch.rand(2, 3, 64, 64))
    check_cut_and_stored(tmp_path / "model", name, grouping, network)


@pytest.mark.parametrize(
    ("name", "n_groups", "refused"),
    [
        pytest.param("timm/resnet18", 12, (), marks=pytest.mark.slow),
        ("timm/mobilenetv3_small_100", 27, ()),
        ("timm/convnext_atto", 12, ("stem.0", "stages.1.downsample.1")),
        pytest.param("timm/resnet50_gn", 37, (), marks=pytest.mark.slow),
    ],
)
def test_a_network_of_timm_keeps_its_groups_and_comes_back(
    tmp_path: Path, name: str, n_groups: int, refused: tuple[str, ...]
) -> None:
    pytest.importorskip("timm")
    network = create_network(name, {"n_classes": 5}, seed=1).eval()
    grouping = find_groups(network, torch.rand(2, 3, 64, 64))
    assert len(grouping.groups) == n_groups
    assert tuple(grouping.refused)[: len(refused)] == refused
    assert all("normalises over its channels" in reason for reason in grouping.refused.values())
    check_cut_and_stored(tmp_path / "model", name, grouping, network)


def test_a_name_of_timm_with_that_of_its_published_weights_is_the_network_with_fresh_ones() -> None:
    pytest.importorskip("timm")
    tagged, bare = (create_network(name, seed=0) for name in ("timm/resnet18.a1_in1k", "timm/resnet18"))
    assert all(torch.equal(*pair) for pair in zip(tagged.parameters(), bare.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm/resnet1", {}, "unknown network 'timm/resnet1'; did you mean 'resnet18'"),
        ("timm/resnet18.none", {}, r"got Invalid pretrained tag \(none\) for resnet18"),
        ("timm/resnet18", {"nclasses": 3}, "unexpected keyword argument 'nclasses'; n_classes is one"),
    ],
)
def test_what_timm_does_not_have_is_one_clear_line(name: str, options: dict, message: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigurationError, match=message) as refusal:
        create_network(name, options)
    assert "\n" not in str(refusal.value)


MOST_S = 150.0
"""Processor time to find groups, on a slow machine; the tracer alone takes over ten minutes for Swin-T."""
NETWORKS_THAT_KEEP_ALL_GROUPS = (
    "resnet50",
    "wide_resnet50_2",
    "vgg16",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "regnet_x_400mf",
    "regnet_y_400mf",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS_THAT_KEEP_ALL_GROUPS)
def test_no_group_of_the_usual_networks_is_refused(name: str) -> None:
    network = create_network(f"torchvision/{name}").eval()
    grouping = find_groups(network, torch.rand(2, 3, 64, 64))
    assert grouping.refused == {}
    assert least_share(network, grouping) <= 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "share"),
    [("swin_t", 224, 0.3), ("vit_b_16", 224, 0.34)],  # attention stays whole
)
def test_networks_with_parts_that_cannot_be_cut_still_reach_a_third_of_their_macs(
    name: str, size: int, share: float
) -> None:
    network = create_network(f"torchvision/{name}").eval()
    grouping = find_right_groups_in_time(network, torch.rand(2, 3, size, size))
    assert least_share(network, grouping, size) <= share


@pytest.mark.slow
def test_of_convnext_only_what_a_layer_norm_averages_over_stays() -> None:
    network = create_network("torchvision/convnext_tiny").eval()
    grouping = find_right_groups_in_time(network, torch.rand(2, 3, 64, 64))
    assert list(grouping.refused) == ["features.0.0", "features.2.1", "features.4.1", "features.6.1"]
    assert all("normalises over its channels" in reason for reason in grouping.refused.values())
    assert len(grouping.names) == 18  # of each block the four times wider inside
    assert least_share(network, grouping, 64) <= 0.3


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "shufflenet_v2_x1_0"])
def test_groups_with_channel_shuffles_are_right_or_refused_in_one_line(name: str) -> None:
    network = create_network(f"torchvision/{name}").eval()
    grouping = find_right_groups_in_time(network, torch.rand(2, 3, 64, 64))
    if not grouping.groups:
        with pytest.raises(ConfigurationError, match=r"channel groups .* got none \(conv1\.0: ") as refusal:
            grouping.check_any()
        assert "\n" not in str(refusal.value)


def find_right_groups_in_time(network: nn.Module, example: torch.Tensor) -> Grouping:
    """Return a network's groups after a check that each is right, or refused for a reason, and in time."""
    used_s = read_processor_time()
    grouping = find_groups(network, example)
    assert used_s() < MOST_S
    assert grouping.groups or grouping.refused
    assert all(reason and "\n" not in reason for reason in grouping.refused.values())
    draws = torch.Generator().manual_seed(7)
    random = randomised_copy(network, draws)
    assert check_masked_equals_compact(random, grouping, example, generator=draws) is None
    return grouping


def least_share(network: nn.Module, grouping, size: int = 64) -> float:
    example = torch.rand(2, 3, size, size)
    costs = CostModel(network, grouping, example)
    return costs.costs(dict.fromkeys(grouping.names, 1)).macs / count_costs(network, example).macs


def test_resnet50_costs_what_the_reference_says_of_its_vectors() -> None:
    """`--pruned_arch_ins 42,80,130,250 --pruned_arch_out 50,240,390,704,1648` of Dirichlet pruning."""
    network = create_network("torchvision/resnet50").eval()
    grouping = find_groups(network, torch.rand(2, 3, 64, 64))
    outputs = "conv1=50,layer1.0.conv3=240,layer2.0.conv3=390,layer3.0.conv3=704,layer4.0.conv3=1648"
    costs = CostModel(network, grouping, torch.rand(2, 3, 224, 224))
    for inner in ("layer1.*=42,layer2.*=80,layer3.*=130,layer4.*=250", "42,80,130,250"):
        assert costs.costs(Architecture.parse(f"{inner},{outputs}", grouping)).macs == 1_675_654_796


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("torchvision/resnet18", "2,3,4,5", "64-2-2-3-128-3-4-256-4-5-512-5"),
        ("torchvision/resnet18", "1,2,3,4,5,6,7,8", "64-1-2-3-128-4-5-256-6-7-512-8"),
        pytest.param("wrn28_10", "2,3,4", "16-2-160-2-2-2-3-320-3-3-3-4-640-4-4-4", marks=pytest.mark.slow),
        ("resnet20", "2,3,4", "2-2-2-3-3-3-4-4-4"),
    ],
)
def test_a_number_for_each_stage_or_block_leaves_stem_and_outputs_whole(
    name: str, text: str, expected: str
) -> None:
    grouping = find_groups(create_network(name).eval(), torch.rand(2, 3, 32, 32))
    assert str(Architecture.parse(text, grouping)) == expected

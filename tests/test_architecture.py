"""Architectures: reading, writing, checking against the groups, and one clear line for each mistake."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from dirprune.architecture import Architecture
from dirprune.errors import ArchitectureError
from dirprune.groups import ChannelGroup, Grouping, Slot

GROUPS = Grouping(
    tuple(
        ChannelGroup(name, n_channels, (), ())
        for name, n_channels in {"conv1": 10, "conv2": 20, "linear1": 100, "linear2": 25}.items()
    )
)


def test_full_keeps_every_channel_in_forward_order() -> None:
    full = Architecture.full(GROUPS)
    assert list(full.items()) == [("conv1", 10), ("conv2", 20), ("linear1", 100), ("linear2", 25)]


def test_uniform_rounds_and_keeps_at_least_one_channel() -> None:
    assert str(Architecture.uniform(GROUPS, 0.33)) == "3-7-33-8"
    assert str(Architecture.uniform(GROUPS, 0.001)) == "1-1-1-1"
    assert Architecture.uniform(GROUPS, 1) == Architecture.full(GROUPS)


@pytest.mark.parametrize("ratio", [0, -0.5, 1.5, float("nan"), float("inf")])
def test_keep_ratio_outside_0_to_1_is_refused(ratio: float) -> None:
    with pytest.raises(ArchitectureError, match=r"keep ratio must be in \(0, 1\], got .*; 50% is 0\.5"):
        Architecture.uniform(GROUPS, ratio)


@pytest.mark.parametrize("text", ["8,9,36,17", " 8, 9 ,36,17 ", "8-9-36-17"])
def test_parse_reads_what_people_write(text: str) -> None:
    parsed = Architecture.parse(text, GROUPS)
    assert dict(parsed) == {"conv1": 8, "conv2": 9, "linear1": 36, "linear2": 17}
    assert str(parsed) == "8-9-36-17"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "8,9,36",
            r"^expected 4 numbers, one for each of conv1 \(10\), conv2 \(20\), linear1 \(100\), "
            r"linear2 \(25\), got 3: '8,9,36'$",
        ),
        ("", r"^expected 4 numbers, .* got 1: ''$"),
        ("8,9,36,17,1", r"^expected 4 numbers, .* got 5"),
        ("0,9,36,17", r"^kept channels of conv1 must be in 1\.\.10, got 0$"),
        ("8,-9,36,17", r"^kept channels of conv2 must be in 1\.\.20, got -9$"),
        ("8,9,101,17", r"^kept channels of linear1 must be in 1\.\.100, got 101$"),
        ("8,9,36,half", r"^expected a whole number in 1\.\.25 for linear2, got 'half'$"),
        ("8,9,36,1.5", r"^expected a whole number in 1\.\.25 for linear2, got '1\.5'$"),
        ("8,9,,17", r"^expected a whole number in 1\.\.100 for linear1, got ''$"),
        ("8,9,३,17", r"^expected a whole number in 1\.\.100 for linear1, got '३'$"),
    ],
)
def test_parse_says_what_is_wrong_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture.parse(text, GROUPS)


def test_json_and_pickle_bring_the_same_architecture_back() -> None:
    architecture = Architecture.parse("8,9,36,17", GROUPS)
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
    assert pickle.loads(pickle.dumps(architecture)) == architecture


def test_json_of_another_kind_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="expected kept channels by group, got a list"):
        Architecture.from_json([8, 9])  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match=r"expected a whole number of channels for conv1, got 8\.0"):
        Architecture.from_json({"conv1": 8.0})


@pytest.mark.parametrize("value", [0, -1, True])
def test_no_group_keeps_less_than_one_channel(value: int) -> None:
    with pytest.raises(ArchitectureError, match=f"expected at least 1 kept channel for conv1, got {value}"):
        Architecture({"conv1": value})


def test_equal_architectures_have_equal_hashes_whatever_the_order() -> None:
    first, second = Architecture({"a": 1, "b": 2}), Architecture({"b": np.int64(2), "a": 1})
    assert first == second == {"a": 1, "b": 2}
    assert len({first, second}) == 1
    assert first != Architecture({"a": 2, "b": 1})


def test_a_later_change_of_the_given_mapping_does_not_reach_the_architecture() -> None:
    kept = {"a": 1}
    architecture = Architecture(kept)
    kept["a"] = 5
    assert architecture["a"] == 1


def test_validate_puts_the_groups_into_forward_order() -> None:
    shuffled = Architecture({"linear2": 4, "conv1": 1, "linear1": 3, "conv2": 2})
    assert str(shuffled.validate(GROUPS)) == "1-2-3-4"


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            {"conv1": 1, "conv2": 1, "linear1": 1},
            r"expected kept channels for each of conv1, .*linear2, got none for 'linear2'",
        ),
        ({"conv_1": 1}, "unknown channel group 'conv_1'; did you mean 'conv1'"),
        (
            {"conv1": 1, "conv2": 21, "linear1": 1, "linear2": 1},
            r"kept channels of conv2 must be in 1\.\.20, got 21",
        ),
    ],
)
def test_validate_names_what_does_not_fit(kept: dict[str, int], message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture(kept).validate(GROUPS)


RESNET = Grouping(
    tuple(
        ChannelGroup(f"layer{stage}.{block}.conv1", 8 * stage, (), ())
        for stage in (1, 2, 3)
        for block in (0, 1)
    )
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4,5,6", "4-4-5-5-6-6"),
        ("4,5,6,7,8,9", "4-5-6-7-8-9"),
        ("layer1.*=4, layer3.1.conv1=6", "4-4-16-16-24-6"),
        ("*=7,layer2.*=9", "7-7-9-9-7-7"),
    ],
)
def test_stages_and_patterns_stand_for_their_groups(text: str, expected: str) -> None:
    assert str(Architecture.parse(text, RESNET)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4,5,6,7,8,9,8", "expected 6 numbers"),
        ("4,5,6,7,8,9,9", "expected 6 numbers"),  # one more than there are is for VGG-16 alone
        ("layer4.*=4", r"got 'layer4\.\*'; did you mean 'layer"),
        ("layer1.*=9", "kept channels of layer1.0.conv1 must be in 1..8, got 9"),
        ("layer1.*=", "expected a whole number in 1..8 for layer1.0.conv1, got ''"),
    ],
)
def test_patterns_that_do_not_fit_are_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture.parse(text, RESNET)


def make_group(name: str, n_channels: int, producers: str, consumers: str) -> ChannelGroup:
    """Return a group with a slot for each named layer."""
    axes = ([Slot(module, ()) for module in modules.split()] for modules in (producers, consumers))
    return ChannelGroup(name, n_channels, *map(tuple, axes))


def test_the_fifteen_numbers_of_vgg16_are_its_fourteen_groups() -> None:
    groups = Grouping(tuple(make_group(f"conv{n}", 512, f"conv{n}", "fc") for n in range(14)))
    text = "34,34,60,60,70,101,97,88,95,85,86,67,61,55"
    assert Architecture.parse(f"{text},55", groups) == Architecture.parse(text, groups)
    with pytest.raises(ArchitectureError, match="expected 14 numbers"):
        Architecture.parse(f"{text},54", groups)


STEMMED = Grouping(
    (
        make_group("conv1", 8, "conv1 layer1.0.conv2 layer1.1.conv2", "layer1.0.conv1 layer2.0.conv1"),
        make_group("layer1.0.conv1", 8, "layer1.0.conv1 layer1.0.bn1", "layer1.0.conv2"),
        make_group("layer1.1.conv1", 8, "layer1.1.conv1 layer1.1.bn1", "layer1.1.conv2"),
        make_group("layer2.0.conv1", 16, "layer2.0.conv1 layer2.0.bn1", "layer2.0.conv2"),
        make_group("layer2.0.conv2", 16, "layer2.0.conv2 layer2.0.shortcut", "fc"),
    )
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4,5", "8-4-4-5-16"),
        ("4-5", "8-4-4-5-16"),
        ("4,5,6", "8-4-5-6-16"),
        ("4,5,conv1=7,layer2.0.conv2=9", "7-4-4-5-9"),
        ("4,99,layer2.0.conv1=16", "8-4-4-16-16"),
        ("1,2,3,4,5", "1-2-3-4-5"),
        ("1,2,3,4,5,*=3", "3-3-3-3-3"),
    ],
)
def test_numbers_of_stages_and_blocks_are_of_what_lies_inside_blocks(text: str, expected: str) -> None:
    assert str(Architecture.parse(text, STEMMED)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "4",
            r"expected 5 numbers, one for each of conv1 \(8\), .*, or 2 for the stages, or 3 for the blocks",
        ),
        ("9,5", r"kept channels of layer1\.0\.conv1 must be in 1\.\.8, got 9"),
        ("conv1=4,5,6", "expected numbers before names, as in 8,20,conv1=12, got 'conv1=4,5,6'"),
    ],
)
def test_numbers_that_fit_neither_groups_nor_stages_nor_blocks_are_one_clear_line(
    text: str, message: str
) -> None:
    with pytest.raises(ArchitectureError, match=message):
        Architecture.parse(text, STEMMED)

"""The four roles: disjoint by construction, balanced, seeded, and one clear line for each mistake."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dirprune.data import DataRoles, Split, make_roles
from dirprune.errors import DataError

N_TRAIN, N_TEST, N_CLASSES = 400, 100, 4


def make_sets(n_train: int = N_TRAIN, n_test: int = N_TEST, n_classes: int = N_CLASSES) -> tuple:
    """Return sets whose inputs hold their own number, so that an example can be recognised."""
    sets: list[torch.Tensor] = []
    for first, count in ((0, n_train), (10_000, n_test)):
        inputs = torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1, 1, 1)
        sets += [inputs, torch.arange(count) % n_classes]
    return tuple(sets)


def make(**changes: Any) -> DataRoles:
    settings: dict[str, Any] = {"n_classes": N_CLASSES, "n_calibration": 60, **changes}
    return make_roles("numbers", *make_sets(), **settings)


def places(split: Split) -> set[tuple[str, int]]:
    return {(split.source, int(index)) for index in split.indices}


def test_networks_can_be_judged_on_fewer_images_of_every_class() -> None:
    roles = make(validation_from="test:0.5")
    fewer = roles.judged_on(20, seed=3)
    for few, all_ in ((fewer.validation, roles.validation), (fewer.test, roles.test)):
        assert len(few) == 20
        assert places(few) < places(all_)
        assert few.targets.unique().tolist() == all_.targets.unique().tolist()
    assert fewer.train is roles.train
    assert fewer.calibration is roles.calibration
    assert roles.judged_on(20, seed=3).fingerprint() == fewer.fingerprint() != roles.fingerprint()
    assert roles.judged_on(10**6, seed=3).fingerprint() == roles.fingerprint()
    with pytest.raises(DataError, match=r"expected every one of the \d+ classes in the validation role"):
        roles.judged_on(1, seed=3)
    with pytest.raises(DataError, match="must be at least 1, got 0"):
        roles.judged_on(0, seed=3)


@pytest.mark.parametrize("validation_from", ["train:0.1", "train:0.5", "test:0.5", "test:0.25"])
@pytest.mark.parametrize("n_classes", [N_CLASSES, None])
@pytest.mark.parametrize("train_limit", [None, 50])
def test_train_validation_and_test_are_disjoint_and_calibration_is_a_part_of_train(
    validation_from: str, n_classes: int | None, train_limit: int | None
) -> None:
    roles = make(validation_from=validation_from, n_classes=n_classes, train_limit=train_limit)
    train, validation, test = (places(split) for split in (roles.train, roles.validation, roles.test))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert places(roles.calibration) <= train
    for split in (roles.train, roles.calibration, roles.validation, roles.test):
        assert len(places(split)) == len(split) > 0


@pytest.mark.parametrize(
    ("validation_from", "sizes", "sources"),
    [
        ("train:0.1", (360, 60, 40, 100), ("train", "train", "train", "test")),
        ("test:0.5", (400, 60, 50, 50), ("train", "train", "test", "test")),
    ],
)
def test_every_example_has_one_role(validation_from: str, sizes: tuple, sources: tuple) -> None:
    roles = make(validation_from=validation_from)
    splits = (roles.train, roles.calibration, roles.validation, roles.test)
    assert tuple(len(split) for split in splits) == sizes
    assert tuple(split.source for split in splits) == sources
    assert len(places(roles.train) | places(roles.validation) | places(roles.test)) == N_TRAIN + N_TEST


@pytest.mark.parametrize("validation_from", ["train:0.1", "test:0.5"])
def test_indices_lead_to_the_example_in_its_source(validation_from: str) -> None:
    roles = make(validation_from=validation_from, train_limit=50)
    for split in (roles.train, roles.calibration, roles.validation, roles.test):
        first = 0 if split.source == "train" else 10_000
        assert torch.equal(split.inputs.flatten(), split.indices.float() + first)
        assert torch.equal(split.targets, split.indices % N_CLASSES)


@pytest.mark.parametrize("validation_from", ["train:0.1", "test:0.5"])
def test_the_seed_matters_and_reproduces(validation_from: str) -> None:
    first, again, other = (make(validation_from=validation_from, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint()
    assert torch.equal(first.calibration.indices, again.calibration.indices)
    assert places(first.validation) != places(other.validation)
    assert places(first.calibration) != places(other.calibration)


def test_roles_without_classes_are_cut_by_seed_too() -> None:
    first, again, other = (make(n_classes=None, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.validation.indices, again.validation.indices)
    assert places(first.validation) != places(other.validation)


def test_a_training_limit_leaves_validation_and_test_alone_and_grows_by_adding() -> None:
    whole, small, smaller = (make(train_limit=limit) for limit in (None, 80, 20))
    assert places(whole.validation) == places(small.validation)
    assert places(whole.test) == places(small.test)
    assert places(smaller.train) < places(small.train) < places(whole.train)
    assert len(smaller.train) == 20
    assert len(smaller.calibration) == 10


def test_a_training_limit_above_the_size_changes_nothing() -> None:
    assert make(train_limit=10_000).fingerprint() == make().fingerprint()


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    before = torch.get_rng_state()
    first = make().fingerprint()
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(3)
    assert make().fingerprint() == first


@given(st.integers(0, 5), st.integers(1, 40), st.data())
@settings(max_examples=30, deadline=None)
def test_calibration_and_limited_training_hold_the_same_number_of_each_class(seed, limit, data) -> None:
    roles = make(seed=seed, train_limit=4 * limit)
    beginning = data.draw(st.integers(1, len(roles.calibration)))
    for labels in (roles.train.targets, roles.calibration.targets, roles.calibration.targets[:beginning]):
        counts = torch.bincount(labels, minlength=N_CLASSES)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("validation_from", ["train:0.2", "test:0.5"])
def test_rare_classes_keep_their_share_of_validation_and_are_used_up_by_calibration(
    validation_from: str,
) -> None:
    labels = torch.tensor([0] * 300 + [1] * 90 + [2] * 10)
    inputs = torch.zeros(400, 1, dtype=torch.uint8)
    roles = make_roles(
        "rare",
        inputs,
        labels,
        inputs.clone(),
        labels,
        validation_from=validation_from,
        n_classes=3,
        n_calibration=150,
    )
    share = float(validation_from.partition(":")[2])
    assert torch.bincount(roles.validation.targets).tolist() == [300 * share, 90 * share, 10 * share]
    counts = torch.bincount(roles.calibration.targets).tolist()
    n_rare = int((roles.train.targets == 2).sum())
    assert counts[2] == n_rare  # all of them
    assert abs(counts[0] - counts[1]) <= 1 or counts[1] == int((roles.train.targets == 1).sum())
    assert sum(counts) == 150


def test_calibration_is_never_more_than_half_of_training() -> None:
    assert len(make(n_calibration=5000).calibration) == 180


def test_uint8_images_are_normalised_per_channel() -> None:
    images = torch.tensor([[[[0, 255]], [[51, 102]]]], dtype=torch.uint8)  # (1, 2, 1, 2)
    sets = (images.repeat(4, 1, 1, 1), torch.arange(4), images.repeat(4, 1, 1, 1), torch.arange(4))
    roles = make_roles("two", *sets, validation_from="train:0.5", mean=(0.5, 0.2), std=(0.5, 0.1))
    expected = torch.tensor([[[[-1.0, 1.0]], [[0.0, 2.0]]]])
    torch.testing.assert_close(roles.normalise(images), expected, atol=1e-6, rtol=0)
    assert roles.normalise(images).dtype == torch.float32
    assert roles.input_shape == (2, 1, 2)


def test_float_inputs_are_not_divided_by_255_and_stay_as_they_are() -> None:
    inputs = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    roles = make_roles(
        "table", inputs, inputs, inputs.clone(), inputs, validation_from="train:0.5", mean=(1.0,), std=(2.0,)
    )
    assert roles.normalise(inputs).tolist() == [[0.0, 0.5], [1.0, 1.5]]
    assert inputs.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_arrays_of_numpy_and_double_precision_are_taken() -> None:
    sets = (np.zeros((10, 3)), np.zeros((10, 2)), np.zeros((10, 3)), np.zeros((10, 2)))
    roles = make_roles("table", *sets, validation_from="test:0.5")  # type: ignore[arg-type]
    assert roles.train.inputs.dtype == torch.float32


def test_example_input_is_normalised_and_repeats_when_there_is_too_little() -> None:
    roles = make(mean=(1.0,), std=(2.0,))
    assert torch.equal(roles.example_input(), roles.normalise(roles.calibration.inputs[:2]))
    assert roles.example_input(batch=1000).shape == (1000, 1, 1, 1)


def test_the_fingerprint_sees_content_roles_and_normalisation() -> None:
    sets = list(make_sets())
    prints = {make_roles("a", *sets, n_classes=N_CLASSES).fingerprint()}
    prints.add(make_roles("a", *sets, n_classes=N_CLASSES, std=(2.0,)).fingerprint())
    prints.add(make_roles("a", *sets, n_classes=N_CLASSES, seed=1).fingerprint())
    sets[2] = sets[2].clone()
    sets[2][0] += 1
    prints.add(make_roles("a", *sets, n_classes=N_CLASSES).fingerprint())
    assert len(prints) == 4


def test_moving_to_a_device_keeps_everything() -> None:
    roles = make()
    moved = roles.to("meta")
    assert moved.train.inputs.device.type == moved.calibration.indices.device.type == "meta"
    assert roles.to("cpu").fingerprint() == roles.fingerprint()


def test_a_subset_keeps_the_order_that_is_asked_for() -> None:
    split = make().test.subset(torch.tensor([3, 1]))
    assert split.indices.tolist() == [3, 1]
    assert split.inputs.flatten().tolist() == [10_003.0, 10_001.0]


@pytest.mark.parametrize(
    "text",
    [
        "train",
        "train:",
        "train:0",
        "train:1",
        "train:1.5",
        "test:-0.1",
        "val:0.1",
        "test:half",
        "train:nan",
        "",
    ],
)
def test_a_validation_source_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(
        DataError, match=r"^expected validation_from train:F or test:F with F in \(0, 1\), got "
    ) as caught:
        make(validation_from=text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"validation_from": "train:0.0001"},
            "leaves no example for one of the two parts of the 400 train examples",
        ),
        (
            {"validation_from": "test:0.9999"},
            "leaves no example for one of the two parts of the 100 test examples",
        ),
        ({"train_limit": 0}, r"train_limit \(--train-images\) must be at least 1, got 0"),
        ({"n_calibration": 0}, "n_calibration must be at least 1, got 0"),
        (
            {"train_limit": 2},
            r"expected every one of the 4 classes in the train role, got none of class \d, \d in 2",
        ),
        ({"validation_from": "test:0.03"}, "in the validation role, got none of class"),
        ({"n_classes": 3}, r"expected train labels in 0\.\.2, got 0\.\.3"),
        ({"n_classes": 5}, "of the 5 classes in the train role, got none of class 4"),
        ({"std": (0.0,)}, r"expected a finite mean and std > 0"),
        ({"mean": (math.nan,)}, r"expected a finite mean and std > 0"),
        ({"mean": (0.0, 0.0), "std": (1.0, 1.0)}, "expected mean and std of one number or 1, got 2 and 2"),
        ({"mean": (0.0,), "std": ()}, "expected mean and std of one number or 1, got 1 and 0"),
    ],
)
def test_settings_that_cannot_work_are_one_clear_line(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, torch.zeros(0, 1), "expected as many train inputs as targets, at least one, got 0 and 400"),
        (3, torch.zeros(3), "expected as many test inputs as targets, at least one, got 100 and 3"),
        (
            0,
            torch.zeros(400, 1, dtype=torch.int64),
            "expected train inputs of type uint8 or float32, got torch.int64",
        ),
        (2, torch.zeros(100, 2, 1, 1), r"inputs of the same shape, got \(1, 1, 1\) and \(2, 1, 1\)"),
        (1, torch.zeros(400), "expected one whole-number label per train example"),
        (3, torch.zeros(100, 2, dtype=torch.int64), "expected one whole-number label per test example"),
        (1, torch.full((400,), -1), r"expected train labels in 0\.\.3, got -1\.\.-1"),
    ],
)
def test_sets_that_do_not_fit_are_one_clear_line(place: int, value: torch.Tensor, message: str) -> None:
    sets = list(make_sets())
    sets[place] = value
    with pytest.raises(DataError, match=message):
        make_roles("broken", *sets, n_classes=N_CLASSES)


def test_one_tensor_as_both_sets_is_refused() -> None:
    inputs, targets = torch.zeros(10, 3), torch.zeros(10)
    with pytest.raises(DataError, match=r"without an example in common, got the same tensor as both; hold"):
        make_roles("twice", inputs, targets, inputs, targets)


def test_roles_are_shown_by_sizes_and_shapes_without_their_tensors() -> None:
    lines = repr(make(validation_from="test:0.5", train_limit=50)).splitlines()
    assert lines[0] == f"DataRoles('numbers', {N_CLASSES} classes,"
    assert lines[1] == "    train=Split(50 of 'train', inputs (50, 1, 1, 1) float32, targets (50,) int64),"
    assert [line.strip().partition("=")[0] for line in lines[2:5]] == ["calibration", "validation", "test"]
    assert lines[5:] == ["    mean=(0.0,), std=(1.0,)", ")"]

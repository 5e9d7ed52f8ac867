"""A study goes on as what it was, also when it was started before a field was there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from dirprune.recipe import Recipe
from dirprune.study.difference import find_differences
from dirprune.study.spec import StudySpec

SPEC = StudySpec(name="any", network="lenet5", data="digits", fine_tuning=Recipe(images=0, lr=0.01))


def describe(spec: StudySpec) -> dict[str, Any]:
    return json.loads(json.dumps(spec.describe()))


def without(description: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return a description as a version wrote it that did not know one field."""
    *parts, field = path
    copied = json.loads(json.dumps(description))
    owner = copied
    for part in parts:
        owner = owner[part]
    del owner[field]
    return copied


@pytest.mark.parametrize(
    "path", [("fine_tuning", "warmup"), ("fine_tuning", "shear"), ("space", "warm_starts"), ("halving",)]
)
def test_field_that_was_not_known_is_no_difference_with_its_default(path: tuple[str, ...]) -> None:
    assert find_differences(without(describe(SPEC), *path), describe(SPEC)) == []


@pytest.mark.parametrize(
    ("changed", "path", "key"),
    [
        (
            replace(SPEC, fine_tuning=Recipe(images=0, lr=0.01, warmup=0.1)),
            ("fine_tuning", "warmup"),
            "fine_tuning.warmup",
        ),
        (replace(SPEC, halving="none"), ("halving",), "halving"),
        (
            replace(SPEC, space=replace(SPEC.space, warm_starts=9)),
            ("space", "warm_starts"),
            "space.warm_starts",
        ),
    ],
)
def test_field_that_was_not_known_is_a_difference_with_another_value(
    changed: StudySpec, path: tuple[str, ...], key: str
) -> None:
    assert find_differences(without(describe(SPEC), *path), describe(changed)) == [key]


def test_field_that_was_known_differs_whatever_its_default() -> None:
    default = replace(SPEC, fine_tuning=Recipe(images=0))
    assert find_differences(describe(SPEC), describe(default)) == ["fine_tuning.lr"]
    fewer = describe(SPEC)
    fewer["space"]["methods"].popitem()
    assert find_differences(fewer, describe(SPEC)) == ["space.methods"]


def test_what_is_not_known_yet_is_not_compared() -> None:
    assert find_differences({**describe(SPEC), "weights": "abc"}, describe(SPEC)) == []
    assert find_differences({"storage": "a"}, {"storage": "b"}) == ["storage"]


@pytest.mark.parametrize("stored", [0.9, "0.90", ".9"])
def test_a_least_accuracy_is_the_same_however_it_was_written(stored: str | float) -> None:
    assert find_differences({"min_val_accuracy": stored}, {"min_val_accuracy": "0.9"}) == []
    assert find_differences({"min_val_accuracy": stored}, {"min_val_accuracy": "0.5"}) == ["min_val_accuracy"]


def test_code_of_own_methods_that_was_not_recorded_is_no_difference() -> None:
    def describe_with(code: str) -> dict[str, Any]:
        described = describe(SPEC)
        return {**described, "space": {**described["space"], "own_methods": {"own": code}}}

    assert find_differences(describe(SPEC), describe_with("a")) == []
    assert find_differences(describe_with("a"), describe_with("a")) == []
    assert find_differences(describe_with("a"), describe_with("b")) == ["space.own_methods"]
    assert find_differences(describe_with("a"), describe(SPEC)) == ["space.own_methods"]


def test_content_that_was_not_looked_at_is_no_difference() -> None:
    def describe_loss(*weights: float, scale: float = 1.0) -> dict[str, Any]:
        weight = torch.tensor(weights)
        return describe(replace(SPEC, loss=lambda outputs, targets: scale * (outputs - targets) @ weight))

    assert find_differences(describe_loss(1.0), describe_loss(1.0)) == []
    assert find_differences(describe_loss(1.0), describe_loss(2.0)) == ["loss.content_sha256"]
    bare = describe(replace(SPEC, loss=lambda outputs, targets: outputs - targets))
    assert bare["loss"]["content_sha256"] is None
    gained = {**bare, "loss": {**bare["loss"], "content_sha256": "1"}}
    assert find_differences(bare, gained) == find_differences(gained, bare) == ["loss.content_sha256"]
    assert find_differences(without(bare, "loss", "content_sha256"), bare) == []
    earlier = without(describe_loss(1.0), "loss", "content_sha256")
    assert find_differences(earlier, describe_loss(1.0)) == []
    assert find_differences(earlier, describe_loss(1.0, scale=2.0)) == ["loss.state_sha256"]
    assert find_differences({"storage": "a"}, describe_loss(1.0)) == find_differences({}, describe_loss(1.0))

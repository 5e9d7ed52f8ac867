"""Every study of `studies/` can begin: its network has groups, and its first trials fit them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from dirprune.cost import CostModel
from dirprune.study.spec import StudySpec
from dirprune.tracing import find_groups

STUDIES = sorted((Path(__file__).parent.parent / "studies").glob("*.py"))
SHAPES = {"lenet": (1, 28, 28), "resnet50": (3, 64, 64)}
SLOW = ("wrn28_10",)


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in STUDIES]
)
def test_the_study_can_begin(path: Path) -> None:
    declared = runpy.run_path(str(path), run_name="study")["spec"]
    assert isinstance(declared, StudySpec)
    assert declared.name == path.stem
    example = torch.rand(2, *SHAPES.get(path.stem, (3, 32, 32)))
    network = declared.create_network().eval()
    grouping = find_groups(network, example)
    costs = CostModel(network, grouping, example)
    first = declared.space.first_trials(grouping)
    assert first[0][0] == "dense"
    assert len(first) == 4 + len(declared.space.reference_architectures)
    shapes = declared.space.shapes(costs, {})
    for _, architecture in first:
        assert shapes.parameters(architecture)

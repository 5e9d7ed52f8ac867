"""Clusters that grow count as what they may become, where the head knows their definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dirprune.tuning.cluster import Resources, _fit
from dirprune.tuning.growth import HEAD, list_nodes

CLUSTER = Path(__file__).parents[2] / "cluster"
HEAD_NODE = {"NodeID": "h", "Resources": {"CPU": 0.0, HEAD: 1.0}}
WORKER = {"NodeID": "w", "Resources": {"CPU": 4.0, "GPU": 1.0}}


@pytest.fixture
def definition(tmp_path: Path) -> Path:
    """aws.yaml as it lies on the head: Ray has filled in what the machines have."""
    content = yaml.safe_load((CLUSTER / "aws.yaml").read_text())
    content["available_node_types"]["gpu"]["resources"] = {"CPU": 4, "GPU": 1}
    path = tmp_path / "ray_bootstrap_config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_head_without_workers_expects_all_that_the_definition_allows(definition: Path) -> None:
    assert _fit(Resources("auto"), list_nodes([HEAD_NODE], "h", definition)).n_trials == 8


def test_workers_that_live_are_not_expected_once_more(definition: Path) -> None:
    living = [HEAD_NODE, WORKER, {**WORKER, "NodeID": "v"}]
    assert _fit(Resources("auto"), list_nodes(living, "h", definition)).n_trials == 8


def test_elsewhere_and_without_a_definition_living_nodes_are_all(definition: Path, tmp_path: Path) -> None:
    living = [HEAD_NODE, WORKER]
    assert len(list_nodes(living, "w", definition)) == 2
    assert len(list_nodes(living, "h", tmp_path / "none.yaml")) == 2


def test_head_of_a_fixed_cluster_expects_none() -> None:
    assert list_nodes([HEAD_NODE], "h", CLUSTER / "onprem.yaml") == [HEAD_NODE["Resources"]]


def test_more_trials_at_once_may_be_asked_of_a_cluster_than_fit_now_but_not_of_this_machine() -> None:
    nodes = [{"CPU": 2.0}]
    assert _fit(Resources("auto", max_concurrent=8), nodes).n_trials == 8
    assert _fit(Resources(max_concurrent=8), nodes).n_trials == 2

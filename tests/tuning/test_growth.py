"""Clusters that grow count as what they may become, where the head knows their definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dirprune.errors import ConfigurationError
from dirprune.tuning.cluster import Resources, _fit
from dirprune.tuning.growth import HEAD, list_nodes, name_absent
from dirprune.tuning.software import check_software

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


def join(address: str, name: str) -> dict[str, str]:
    return {"NodeManagerAddress": address, "NodeManagerHostname": name}


def refusal(machine: str) -> str:
    """What a machine with another Ray says into the log of the head's autoscaler."""
    with pytest.raises(ConfigurationError) as refused:
        check_software({"ray": "2.60.0"}, machine, {"ray": "2.59.0"})
    return f"error: {refused.value}\n"


def test_listed_machines_that_have_not_joined_are_named_with_what_keeps_them_away(tmp_path: Path) -> None:
    definition = {"provider": {"type": "local", "worker_ips": ["10.0.0.2", "10.0.0.3"]}}
    head, second, third = join("10.0.0.1", "one"), join("10.0.0.2", "two"), join("10.0.0.3", "three")
    log = tmp_path / "monitor.out"
    assert name_absent([head, second], definition, log) == (
        f"not in the cluster: 10.0.0.3 (if they are on, {log} says why)"
    )
    log.write_text(f"2026 INFO: starting\n{refusal('two')}{2 * refusal('three')}2026 ERR: failed\n")
    assert name_absent([head, second], definition, log) == (
        "not in the cluster: 10.0.0.3 (expected ray 2.60.0 on every node, as where the study is driven, "
        "node three has 2.59.0)"
    )
    assert name_absent([head, second, third], definition, log) == ""
    by_name = {"provider": {"worker_ips": ["localhost"]}}
    assert name_absent([{**second, "NodeManagerAddress": "127.0.0.1"}], by_name, log) == ""
    assert name_absent([head], by_name, log).startswith("not in the cluster: localhost (")
    assert name_absent([head], {}, log) == ""
    assert name_absent([head], {"provider": {"type": "aws"}}, log) == ""

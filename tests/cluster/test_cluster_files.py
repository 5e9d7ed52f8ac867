"""The files that start clusters: Ray takes them, they differ where they must, and unedited ones are named."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent.parent
CLUSTER = ROOT / "cluster"
ROOT_DISK_GB = 50
LAUNCHER_FILES = ("onprem", "aws", "gcp")
OF_PROVIDERS = {
    "provider",
    "available_node_types",
    "head_node_type",
    "auth",
    "max_workers",
    "min_workers",
    "upscaling_speed",
    "idle_timeout_minutes",
}


def read(name: str) -> dict:
    return yaml.safe_load((CLUSTER / f"{name}.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_ray_takes_the_file(name: str) -> None:
    config = read(name)
    if name == "onprem":
        config["provider"] |= {"head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    validate_config(prepare_config(config))
    broken = {**copy.deepcopy(config), "setup_comands": []}
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepare_config(broken))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_clouds_differ_from_machines_of_ones_own_only_in_provider_and_nodes(name: str) -> None:
    cloud, own = read(name), read("onprem")
    differing = {key for key in {*cloud, *own} if cloud.get(key) != own.get(key)}
    assert differing <= OF_PROVIDERS
    types = cloud["available_node_types"]
    assert types[cloud["head_node_type"]]["resources"] == {"CPU": 0}
    assert "SPOT" in str(types["gpu"]["node_config"]).upper()


COMPUTE_INSTANCE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "machineType": {"type": "string"},
        "disks": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "boot": {"type": "boolean"},
                    "autoDelete": {"type": "boolean"},
                    "type": {"enum": ["PERSISTENT", "SCRATCH"]},
                    "initializeParams": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "diskSizeGb": {"type": "integer"},  # int64: as a number or a string
                            "sourceImage": {"type": "string"},
                        },
                    },
                },
            },
        },
        "scheduling": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "provisioningModel": {"enum": ["FLEX_START", "RESERVATION_BOUND", "SPOT", "STANDARD"]},
                "onHostMaintenance": {"enum": ["MIGRATE", "TERMINATE"]},
            },
        },
    },
}
"""What the discovery document of Compute v1 says of the fields of an instance that we use.

Ray hands a node's configuration to `instances.insert` as it is.
"""


def test_nodes_of_google_cloud_are_instances_as_compute_describes_them() -> None:
    for node in read("gcp")["available_node_types"].values():
        jsonschema.validate(node["node_config"], COMPUTE_INSTANCE)
        (disk,) = node["node_config"]["disks"]
        assert disk["initializeParams"]["diskSizeGb"] >= ROOT_DISK_GB


def test_nodes_of_amazon_are_instances_as_ec2_describes_them_and_have_room_for_the_packages() -> None:
    instance = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    for node in read("aws")["available_node_types"].values():
        asked = {**node["node_config"], "MinCount": 1, "MaxCount": 1}
        report = ParamValidator().validate(asked, instance.input_shape)
        assert not report.has_errors(), report.generate_report()
        (disk,) = node["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] >= ROOT_DISK_GB


@pytest.fixture
def kubernetes() -> dict[str, dict]:
    """What `kubectl apply` would create, by its kind; policies aside."""
    return {item["kind"]: item for item in read("kuberay")["items"] if item["kind"] != "NetworkPolicy"}


@pytest.fixture
def policies() -> dict[str, dict]:
    """The network policies, by the label that they are applied with."""
    found = [item for item in read("kuberay")["items"] if item["kind"] == "NetworkPolicy"]
    return {item["metadata"]["labels"]["dirprune"]: item for item in found}


def is_valid(resource: dict) -> bool:
    schema = yaml.safe_load(Path(__file__).with_name("kuberay_crd.yaml").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema).is_valid(resource)


def test_cluster_and_job_pass_the_schema_of_the_operator(
    kubernetes: dict[str, dict], policies: dict[str, dict]
) -> None:
    assert kubernetes.keys() == {"RayCluster", "RayJob"}
    assert all(is_valid(resource) for resource in (*kubernetes.values(), *policies.values()))
    names = [item["metadata"]["name"] for item in policies.values()]
    assert len(set(names)) == len(names) == 2, "one would replace the other"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "rayVersoin"), "2.60.0"),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "headGroupSpec", "template"), None),
        (("spec", "headGroupSpec", "template", "spec", "restartPolicy"), "never"),
        (("spec", "workerGroupSpecs", 0, "minReplicas"), "1"),
        (("spec", "workerGroupSpecs", 0, "template", "spec", "containers", 0, "env", 2, "value"), 1000),
        (
            (
                "spec",
                "workerGroupSpecs",
                0,
                "template",
                "spec",
                "containers",
                0,
                "resources",
                "limits",
                "memory",
            ),
            "32GB",
        ),
        (
            (
                "spec",
                "workerGroupSpecs",
                0,
                "template",
                "spec",
                "volumes",
                0,
                "persistentVolumeClaim",
                "claim",
            ),
            "x",
        ),
    ],
)
def test_the_schema_refuses_a_slip(
    kubernetes: dict[str, dict], path: tuple[str | int, ...], value: object
) -> None:
    cluster = copy.deepcopy(kubernetes["RayCluster"])
    place: Any = cluster
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert not is_valid(cluster)


def test_cluster_that_stays_and_cluster_of_a_job_are_one_and_each_is_applied_alone(
    kubernetes: dict[str, dict],
) -> None:
    cluster, job = kubernetes["RayCluster"], kubernetes["RayJob"]
    started_alike = copy.deepcopy(job["spec"]["rayClusterSpec"])
    started_alike["headGroupSpec"]["rayStartParams"]["dashboard-host"] = "127.0.0.1"
    assert cluster["spec"] == started_alike
    assert cluster["metadata"]["labels"] == {"dirprune": "cluster"}
    assert job["metadata"]["labels"] == {"dirprune": "job"}
    told = (CLUSTER / "kuberay.yaml").read_text() + (CLUSTER / "README.md").read_text()
    assert "-l dirprune=cluster" in told
    assert "-l dirprune=job" in told


def test_kubernetes_has_this_ray_and_a_token_and_the_cluster_that_stays_a_dashboard_on_localhost(
    kubernetes: dict[str, dict],
) -> None:
    job = kubernetes["RayJob"]["spec"]
    cluster = job["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    head = cluster["headGroupSpec"]
    for spec in (cluster, kubernetes["RayCluster"]["spec"]):
        assert spec["authOptions"] == {"mode": "token"}
    stays = kubernetes["RayCluster"]["spec"]["headGroupSpec"]
    assert stays["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert job["submissionMode"] == "SidecarMode"
    assert head["template"]["spec"]["restartPolicy"] == "Never"
    for group in [head, *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    study = job["entrypoint"].split()[1].removeprefix("/dirprune/")
    assert (ROOT / study).is_file()


def matches(selector: dict, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def is_let_in(policy: dict, labels: dict[str, str], namespace: str, port: int) -> bool:
    """Whether a pod with such labels gets to a port of a policy's pods, which are in the namespace `here`."""
    return any(
        matches(peer["podSelector"], labels)
        and ("namespaceSelector" in peer or namespace == "here")
        and port in [open["port"] for open in rule.get("ports", [{"port": port}])]
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
    )


def test_operator_reaches_the_dashboard_of_its_job_and_no_stranger_reaches_any_port(
    kubernetes: dict[str, dict], policies: dict[str, dict]
) -> None:
    job, policy = kubernetes["RayJob"]["spec"]["rayClusterSpec"], policies["job"]
    assert job["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"
    assert job["authOptions"] == {"mode": "token"}
    operator = {"app.kubernetes.io/component": "kuberay-operator", "app.kubernetes.io/name": "kuberay"}
    assert is_let_in(policy, operator, "there", 8265)
    assert not is_let_in(policy, operator, "there", 6379)
    check_that_pods_meet_alone(job, policy)


def test_no_stranger_reaches_any_port_of_the_cluster_that_stays(
    kubernetes: dict[str, dict], policies: dict[str, dict]
) -> None:
    check_that_pods_meet_alone(kubernetes["RayCluster"]["spec"], policies["cluster"])


def check_that_pods_meet_alone(cluster: dict, policy: dict) -> None:
    """Each pod of a cluster reaches each other one, and no stranger does."""
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        own = group["template"]["metadata"]["labels"]
        assert matches(policy["spec"]["podSelector"], own)
        assert is_let_in(policy, own, "here", 8265)
        assert is_let_in(policy, own, "here", 6379)
        assert not is_let_in(policy, own, "there", 8265)
    for namespace in ("here", "there"):
        for port in (6379, 8265, 10001):
            assert not is_let_in(policy, {"app": "stranger"}, namespace, port)


def test_heads_alone_may_have_the_login_of_the_mlflow_server_from_a_secret(
    kubernetes: dict[str, dict],
) -> None:
    told = (CLUSTER / "kuberay.yaml").read_text(encoding="utf-8")
    for cluster in (kubernetes["RayCluster"]["spec"], kubernetes["RayJob"]["spec"]["rayClusterSpec"]):
        (source,) = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["envFrom"]
        assert source["secretRef"]["optional"], "a server without logins needs none"
        assert f"kubectl create secret generic {source['secretRef']['name']} --from-env-file=" in told
        for group in cluster["workerGroupSpecs"]:
            (container,) = group["template"]["spec"]["containers"]
            assert container["envFrom"] == [], "trials speak to no server"


@pytest.mark.parametrize("script", sorted(path.name for path in CLUSTER.glob("*.sh")))
def test_scripts_are_bash_that_parses_and_shellcheck_has_nothing_to_say(script: str) -> None:
    subprocess.run(["bash", "-n", str(CLUSTER / script)], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert shellcheck is not None, "it comes with the dev extra"
    command = [shellcheck, "--shell=bash", "--severity=style", "--exclude=SC1091", script]
    done = subprocess.run(command, cwd=CLUSTER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CLUSTER / "check.py"), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", LAUNCHER_FILES)
def test_marked_places_that_are_left_are_named_with_their_line(name: str, tmp_path: Path) -> None:
    for source in (f"{name}.yaml", "environment.sh"):
        shutil.copy(CLUSTER / source, tmp_path / source)
    refused = check(tmp_path / f"{name}.yaml")
    assert refused.returncode == 2
    lines = refused.stderr.splitlines()
    assert all(line.startswith("error: expected this place to be edited: ") for line in lines)
    assert any("environment.sh" in line and "MLFLOW_TRACKING_URI" in line for line in lines)
    assert any(f"{name}.yaml" in line for line in lines)
    for path in tmp_path.iterdir():
        text = path.read_text().replace("[EDIT-ME]", "[edited, edited]")
        path.write_text(text.replace("EDIT-ME", "edited"))
    assert check(tmp_path / f"{name}.yaml").returncode == 0


@pytest.mark.parametrize(
    "listed",
    [
        "worker_ips: [a, b, c]",
        "worker_ips: [a, b,  # the old ones\n    c]",
        "worker_ips:\n    - a\n    # - old\n\n    - b  # d, e\n    - c",
        "worker_ips:  # three\n  - a\n  - b\n  - c",
    ],
)
def test_numbers_of_workers_are_those_of_the_listed_machines(listed: str, tmp_path: Path) -> None:
    text = (CLUSTER / "onprem.yaml").read_text().replace("worker_ips: [EDIT-ME]", listed)
    text = text.replace("EDIT-ME", "x")
    assert yaml.safe_load(text)["provider"]["worker_ips"] == ["a", "b", "c"]
    (tmp_path / "environment.sh").write_text("")
    (tmp_path / "onprem.yaml").write_text(text)
    done = check(tmp_path / "onprem.yaml")
    assert done.returncode == 2
    assert [line.split(",")[0] for line in done.stderr.splitlines()] == [
        "error: expected max_workers: 3",
        "error: expected min_workers: 3",
    ]
    (tmp_path / "onprem.yaml").write_text(text.replace("_workers: 2", "_workers: 3"))
    assert check(tmp_path / "onprem.yaml").returncode == 0


def test_machine_that_is_left_to_edit_is_named_alone_also_on_a_line_of_its_own(tmp_path: Path) -> None:
    text = (
        (CLUSTER / "onprem.yaml")
        .read_text()
        .replace("[EDIT-ME]", "\n    - 10.0.0.2\n    - 10.0.0.3\n    - MARK")
    )
    (tmp_path / "environment.sh").write_text("")
    (tmp_path / "onprem.yaml").write_text(text.replace("EDIT-ME", "x").replace("MARK", "EDIT-ME"))
    lines = check(tmp_path / "onprem.yaml").stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith(": - EDIT-ME")


def test_cluster_file_without_its_environment_is_told_so_and_no_place_is_named_twice(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    shutil.copy(CLUSTER / "onprem.yaml", own)
    assert check(own).returncode == 2
    assert check(own).stderr == (
        f"error: expected environment.sh beside {own}, found none; keep both in one folder\n"
    )
    assert len(check(CLUSTER / "environment.sh").stderr.splitlines()) == 2


def test_slurm_sh_outside_a_job_of_slurm_says_how_it_is_run(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    for name in ("check.py", "slurm.sh"):
        shutil.copy(CLUSTER / name, tmp_path / "cluster" / name)
    (tmp_path / "cluster" / "environment.sh").write_text("")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = ["bash", "cluster/slurm.sh", "studies/lenet.py"]
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: expected a job of Slurm; try sbatch cluster/slurm.sh studies/lenet.py\n"


@pytest.mark.parametrize("command", [["node.sh", "ray", "start"], ["slurm.sh", "studies/lenet.py"]])
def test_a_node_refuses_an_unedited_environment(command: list[str]) -> None:
    started = ["bash", str(CLUSTER / command[0]), *command[1:]]
    refused = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    lines = refused.stderr.splitlines()
    assert len(lines) == 2
    place = "error: expected this place to be edited: cluster/environment.sh:"
    assert all(line.startswith(place) for line in lines)


def test_kubernetes_needs_its_own_places_edited_alone(tmp_path: Path) -> None:
    shutil.copy(CLUSTER / "environment.sh", tmp_path / "environment.sh")
    text = (CLUSTER / "kuberay.yaml").read_text(encoding="utf-8")
    path = tmp_path / "kuberay.yaml"
    path.write_text(text, encoding="utf-8")
    refused = check(path)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 3
    path.write_text(text.replace("EDIT-ME", "edited"), encoding="utf-8")
    assert check(path).returncode == 0


def test_scripts_that_are_run_can_be_run() -> None:
    folders = (ROOT / "cluster", ROOT / "mlflow", ROOT / ".ci")
    scripts = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    run = [path for path in scripts if path.read_bytes().startswith(b"#!/usr/bin/env bash")]
    assert {"local.sh", "serve.sh", "run"} <= {path.name for path in run}
    assert [path.name for path in run if not os.access(path, os.X_OK)] == []

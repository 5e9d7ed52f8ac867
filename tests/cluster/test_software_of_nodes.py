"""A node whose Ray or Python is not the head's is named where Ray would have left it out without a word."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.cluster.machines import ROOT, make_environment, pretend_version

HEAD = ("ray", "start", "--head", "--port=6379")
WORKER = ("ray", "start", "--address=10.0.0.1:6379")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A node's project; its `ray` only writes down what it is asked: it would end others here."""
    project = tmp_path / "dirprune"
    shutil.copytree(ROOT / "cluster", project / "cluster")
    environment = project / "cluster" / "environment.sh"
    environment.write_text(environment.read_text().replace("EDIT-ME", str(tmp_path / "shared")))
    (project / "dirprune").symlink_to(ROOT / "dirprune")
    make_environment(project)
    (project / ".venv" / "bin" / "ray").write_text('#!/bin/sh\necho "$@" >> "$HOME/asked"\n')
    return project


def start(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    (project.parent / "asked").write_text("")
    return subprocess.run(
        ["bash", project / "cluster" / "node.sh", *command],
        env={"PATH": os.environ["PATH"], "HOME": str(project.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_node_with_another_ray_is_named_before_ray_starts_on_it(project: Path) -> None:
    for command in (HEAD, WORKER):
        done = start(project, *command)
        assert (done.returncode, done.stderr) == (0, "")
        assert (project.parent / "asked").read_text() == f"stop\n{' '.join(command[1:])}\n"
    pretend_version(project, "ray", "2.59.0")
    refused = start(project, *WORKER)
    assert refused.returncode == 2
    assert refused.stderr == (
        f"error: expected ray {version('ray')} on every node, as where the study is driven, node "
        f"{platform.node()} has 2.59.0; install the same there\n"
    )
    assert (project.parent / "asked").read_text() == ""


def test_node_with_another_python_is_named(project: Path) -> None:
    assert start(project, *HEAD).returncode == 0
    software = project / "cluster" / "software-of-head.json"
    software.write_text(software.read_text().replace(platform.python_version(), "3.11.99"))
    refused = start(project, *WORKER)
    assert refused.returncode == 2
    assert "expected Python 3.11.99 on every node" in refused.stderr
    assert f"node {platform.node()} has {platform.python_version()};" in refused.stderr


def test_head_of_another_version_than_before_starts(project: Path) -> None:
    assert start(project, *HEAD).returncode == 0
    pretend_version(project, "ray", "2.59.0")
    assert start(project, *HEAD).returncode == 0
    assert start(project, *WORKER).returncode == 0

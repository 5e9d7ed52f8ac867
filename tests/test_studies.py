"""Every study of `studies/` can begin: its network has groups, and its first trials fit them."""

from __future__ import annotations

import csv
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dirprune.cost import CostModel
from dirprune.records.models import load_model
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


SMALLEST = ("--trials", "2", "--epochs", "1", "--dense-epochs", "1", "--rungs", "0", "--warm-starts", "0")
SMALLEST += ("--validation-from", "test:0.5", "--methods", "magnitude", "--no-reconstruct")
RUN = ("resnet20", "resnet56", "vgg16", "wrn28_10", "resnet50")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", RUN)
def test_the_study_runs_to_its_front(name: str, tmp_path: Path, ray_address: str) -> None:
    """At its smallest, on noise: the dense network, and one that keeps three quarters of each group."""
    write_noise(tmp_path / "data", 64 if name == "resnet50" else 32)
    options = ["--data", tmp_path / "data", "--output", tmp_path / "out", "--no-tracking", *SMALLEST]
    options += ["--ray-address", ray_address]
    options += ["--dataset", "folders:64"] if name == "resnet50" else []
    done = run_study(name, [*options, "--min-val-accuracy", "0"])
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "out" / name / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["COMPLETE", "COMPLETE"]
    assert float(rows[1]["macs"]) < 0.8 * float(rows[0]["macs"])


@pytest.mark.slow
def test_another_network_and_other_classes_need_no_other_script(tmp_path: Path, ray_address: str) -> None:
    write_noise(tmp_path / "data", 32, classes=3)
    options = ["--data", tmp_path / "data", "--output", tmp_path / "out", "--no-tracking", *SMALLEST]
    options += ["--ray-address", ray_address]
    options += ["--network", "resnet20", "--dataset", "folders:32", "--min-val-accuracy", "0"]
    done = run_study("resnet56", options)
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = (tmp_path / "out" / "resnet20" / "models").glob("1")
    assert load_model(model)(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def run_study(name: str, options: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run one of the scripts as a user would."""
    command = [sys.executable, STUDIES[0].with_name(f"{name}.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(STUDIES[0].parents[1]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)


def write_noise(root: Path, size: int, n_each: int = 2, classes: int = 10) -> None:
    """Write class folders for training and for testing."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in range(classes):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(n_each):
                pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")

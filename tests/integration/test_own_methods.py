"""Importance methods of a user's own, from a study script and from a file beside it, on a real Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # whole studies, on a machine that may be busy

METHOD = '''
from dirprune.importance import Scorer, register


@register("{name}", "the sum", cost="nothing", needs_data=False, needs_gradients=False, stochastic=False)
class Own(Scorer):
    """Score each channel by what makes it."""

    def score(self, context):
        return {{
            group.name: weigh(context.network.get_submodule(group.producers[0].module).weight)
            for group in context.grouping.groups
        }}


def weigh(weight):
    return weight.flatten(1).abs().{reduction}(1)
'''
STUDY = """
import sys
from pathlib import Path

import torch
from torch import nn

sys.path.append({folder!r})
import {module}  # noqa: F401
from dirprune.cli.study import study_main
from dirprune.data import make_roles
from dirprune.recipe import Recipe
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def data(root, *, validation_from, seed):
    inputs = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    targets = (inputs[:, 0] > inputs[:, 1]).long()
    parts = (inputs[:500], targets[:500], inputs[500:], targets[500:])
    return make_roles("sums", *parts, validation_from=validation_from, seed=seed, n_classes=2)


spec = StudySpec(
    name="own",
    network=network,
    data=data,
    space=SearchSpace(methods={{"magnitude": {{}}}}, warm_starts=2, uniform_keep_ratios=(0.5,)),
    trials=6,
    epochs=1,
    rungs=(),
    dense=Recipe(images=0, batch_size=50),
    dense_epochs=2,
    fine_tuning=Recipe(images=0, batch_size=50),
)

if __name__ == "__main__":
    study_main(spec)
"""


def write_study(root: Path, reduction: str = "sum", module: str = "beside", folder: str = "") -> None:
    """Write a script with the method "mine", and a module with the method "theirs"."""
    script = METHOD.format(name="mine", reduction=reduction) + STUDY.format(module=module, folder=folder)
    (root / "study.py").write_text(script)
    where = root / folder
    where.mkdir(exist_ok=True)
    (where / f"{module}.py").write_text(METHOD.format(name="theirs", reduction="amax"))


def run_study(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "study.py", "--no-tracking", "--output", "out", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the study once."""
    root = tmp_path_factory.mktemp("own")
    write_study(root)
    done = run_study(root, "--methods", "mine,theirs")
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def test_methods_of_a_study_script_and_of_a_file_beside_it_prune_trials(root: Path) -> None:
    records = storage.read_records(StudyFolder(root / "out" / "own"))
    assert [record.state for record in records] == ["COMPLETE"] * 6, [record.reason for record in records]
    assert {record.method for record in records if record.source != "dense"} == {"mine", "theirs"}


def test_a_study_with_methods_of_ones_own_goes_on_as_long_as_they_are_the_same(root: Path) -> None:
    done = run_study(root, "--methods", "mine,theirs", "--resume", "--trials", "8")
    assert done.returncode == 0, done.stdout + done.stderr
    records = storage.read_records(StudyFolder(root / "out" / "own"))
    assert [record.state for record in records] == ["COMPLETE"] * 8, [record.reason for record in records]
    write_study(root, reduction="amax")
    refused = run_study(root, "--methods", "mine,theirs", "--resume", "--trials", "9")
    assert refused.returncode == 2
    assert "study own has space.own_methods {'mine': '" in refused.stderr


def test_a_module_that_workers_cannot_import_is_named_before_anything_runs(tmp_path: Path) -> None:
    write_study(tmp_path, module="faraway", folder="hidden")
    done = run_study(tmp_path, "--methods", "theirs")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "importance method 'theirs' of the module 'faraway' cannot be loaded on node" in last
    assert "No module named 'faraway'); put the method into the study script" in last
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_module_that_ends_its_worker_ends_in_a_line_with_the_node(tmp_path: Path) -> None:
    write_study(tmp_path)
    module = tmp_path / "beside.py"
    ending = "import os, sys\nif 'study.py' not in sys.argv[0]: os._exit(1)\n"
    module.write_text(ending + module.read_text())
    done = run_study(tmp_path, "--methods", "theirs")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "expected node 127.0.0.1 to import the modules of importance methods (beside), got " in last

"""The commands for whoever has a GPU, at their smallest on a CPU: a dense network, and a study of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_studies import write_noise

GPU = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
CHECK = GPU.with_name("gpu_check.py")


def run(*arguments: str | Path, script: Path = GPU) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, (GPU.parents[1], GPU.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, timeout=900
    )


@pytest.mark.slow
def test_dense_networks_are_trained_without_the_libraries_of_studies() -> None:
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('optuna', 'ray', 'mlflow')))\n"
        "import gpu\ngpu.load_spec('vgg16')\ngpu.main(['dense', '--help'], prog_name='gpu.py')\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (GPU.parents[1], GPU.parent)))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "validated on images that it does not see" in done.stdout


@pytest.mark.slow
def test_a_device_that_is_not_here_is_one_line() -> None:
    done = run("--device", "cuda:99", script=CHECK)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "expected a device that is here, got 'cuda:99'" in done.stderr


@pytest.mark.slow
def test_a_device_is_checked_and_what_differs_is_named(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--only", "magnitude", script=CHECK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok      magnitude of resnet20" in done.stdout
    assert "1.0000 at least" in done.stdout
    wrong = tmp_path / "gpu_check.py"
    wrong.write_text(
        CHECK.read_text().replace(
            "make_context(name, where, N_GROUPS)", 'make_context(name, where, N_GROUPS + (where == "cpu"))'
        )
    )
    failed = run("--device", "cpu:0", "--only", "magnitude", script=wrong)
    assert failed.returncode == 1
    assert "FAILED  magnitude of resnet20" in failed.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_dense_network_is_trained_and_studied_and_put_beside_others(
    tmp_path: Path, ray_address: str
) -> None:
    write_noise(tmp_path / "data", 32, n_each=20, classes=3)
    given = ["resnet50", "--data", tmp_path / "data", "--output", tmp_path / "out", "--dense-epochs", "2"]
    begun = run("dense", *given, "--minutes", "0")
    assert begun.returncode == 0, begun.stderr
    assert begun.stdout.splitlines()[-1] == "the minutes are over; the same command goes on"
    trained = run("dense", *given)
    assert trained.returncode == 0, trained.stderr
    assert "50.0%: " in begun.stdout
    assert "50.0%: " not in trained.stdout
    assert "validation 0." in trained.stdout
    more = [
        "--trials",
        "2",
        "--epochs",
        "0.5",
        "--rungs",
        "0",
        "--warm-starts",
        "0",
        "--methods",
        "magnitude",
    ]
    more += ["--no-reconstruct", "--no-tracking", "--min-val-accuracy", "0", "--ray-address", ray_address]
    renamed = run("study", *given, "--", *more, "--name", "other")
    assert "best with 2x fewer MACs or less: " in renamed.stdout, renamed.stdout + renamed.stderr
    assert [path.parent.name for path in (tmp_path / "out").glob("*/front.csv")] == ["other"]
    studied = run("study", *given, "--", *more)
    assert studied.returncode == 0, studied.stdout + studied.stderr
    assert "hypervolume to (1.0, 0.9): 0.0000" in studied.stdout
    assert "best with 2x fewer MACs or less: " in studied.stdout
    assert len(list((tmp_path / "out" / "dense").glob("*.safetensors"))) == 1

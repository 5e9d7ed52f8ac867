"""What `ray job submit` and `ray up` send of a lived-in project: its own files and nothing around them."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.command_runner import SSHCommandRunner

ROOT = Path(__file__).parents[2]
LITTER = (
    ".git/objects/pack/pack-1.pack",
    ".venv/lib/python3.12/site-packages/torch/torch.py",
    ".audit/bin/pip-audit",
    "output/resnet56/models/3/model.safetensors",
    "output/mlflow.db",
    "build/lib/dirprune.py",
    "dist/dirprune.whl",
    "dirprune.egg-info/PKG-INFO",
    "dirprune/study/__pycache__/spec.cpython-312.pyc",
    ".mypy_cache/3.12/torch.data.json",
    ".ruff_cache/0.17/1",
    ".pytest_cache/v/cache/lastfailed",
    ".hypothesis/examples/1",
    "mlruns/0/meta.yaml",
    "mlartifacts/0/model",
    "mlflow.db",
    "mlflow-server/secret-key",
    "mlflow/.env",
)
MAX_BYTES = 10 << 20  # Ray refuses 100 MiB


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A copy of this project in which someone has worked, and the files that belong to it."""
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    own = {name for name in names if (ROOT / name).is_file()}
    folder = tmp_path_factory.mktemp("travels") / "project"
    for name in own:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(1000))
    return folder, own


@pytest.mark.parametrize("reads_gitignore", [True, False])  # RAY_RUNTIME_ENV_IGNORE_GITIGNORE=1 is the second
def test_a_jobs_working_folder_is_the_project_alone(
    project: tuple[Path, set[str]], reads_gitignore: bool, tmp_path: Path
) -> None:
    folder, own = project
    package = tmp_path / "package.zip"
    create_package(str(folder), package, include_gitignore=reads_gitignore)
    with zipfile.ZipFile(package) as sent:
        assert {name for name in sent.namelist() if not name.endswith("/")} == own
    assert package.stat().st_size < MAX_BYTES


@pytest.mark.parametrize("name", ["onprem", "aws", "gcp"])
def test_nodes_get_the_project_alone(project: tuple[Path, set[str]], name: str, tmp_path: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync, such as apt-get install rsync")
    folder, own = project
    config = yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text(encoding="utf-8"))
    filters = SSHCommandRunner._create_rsync_filter_args(None, config)
    subprocess.run(["rsync", "-az", *filters, f"{folder}/", str(tmp_path)], check=True)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == own
    assert sum((tmp_path / name).stat().st_size for name in found) < MAX_BYTES

"""A file of a study that is a pickle in truth is refused or passed over, and its code never runs."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dirprune.errors import DirpruneError
from dirprune.importance.cache import ScoreCache
from dirprune.records.folder import StudyFolder
from dirprune.records.models import load_model
from dirprune.records.tables import load_front
from dirprune.training_state import TrainingState
from tests.cli.conftest import Run
from tests.records.test_export import model  # noqa: F401  (a fixture)


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.mark,)


def write_torch(payload: object) -> bytes:
    content = io.BytesIO()
    torch.save(payload, content)
    return content.getvalue()


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What the code of a hostile file would leave."""
    return tmp_path / "it-ran"


@pytest.fixture(params=[pickle.dumps, write_torch], ids=["pickle", "torch"])
def hostile(request: pytest.FixtureRequest, mark: Path) -> bytes:
    return request.param({"schema": 1, "state": Hostile(mark)})


@pytest.fixture
def study(folder: StudyFolder, model: object) -> StudyFolder:  # noqa: F811
    """The study with a network for trial 1."""
    folder.models_dir.mkdir()
    (folder.output / "models" / "7").rename(folder.model_dir(1))
    return folder


def test_these_pickles_would_run(hostile: bytes, mark: Path) -> None:
    if hostile.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(hostile)) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            pickle.loads(archive.read(name))
    else:
        pickle.loads(hostile)
    assert mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "study.json",
        "optuna.journal",
        "events/1.jsonl",
        "models/1/architecture.json",
        "models/1/model.safetensors",
        "warm_starts.json",
        "ending.json",
        "latencies.json",
        "study.lock",
    ],
)
def test_no_command_runs_the_code_of_a_studys_file(
    run: Run, study: StudyFolder, empty_store: Path, hostile: bytes, mark: Path, name: str
) -> None:
    shutil.copy(empty_store, study.output / "mlflow.db")
    assert (study.root / name).exists() or "/" not in name, "the study holds it under this name"
    (study.root / name).write_bytes(hostile)
    for command in (
        ["front", study.root],
        ["export", study.root, "--trial", 1, "--format", "safetensors"],
        ["explain", study.root],
        ["latency", study.root, "--runs", 2],
        ["sync", study.root],
        ["retrain", study.model_dir(1), "--epochs", 0.01],
        ["abandon", study.root],
    ):
        result = run(*command)
        assert not mark.exists(), command
        assert result.status in (0, 2), (command, result)
        assert "Traceback" not in result.errors, command
        if result.status == 2:
            assert result.errors.splitlines()[-1].startswith("error: "), (command, result)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("state.pt", TrainingState.load),
        ("models/1/model.safetensors", lambda path: load_model(path.parent)),
        ("models/1/architecture.json", lambda path: load_model(path.parent)),
        ("study.json", lambda path: load_front(path.parent)),
    ],
)
def test_reading_from_python_refuses_it(
    study: StudyFolder, hostile: bytes, mark: Path, name: str, read: Callable[[Path], object]
) -> None:
    (study.root / name).write_bytes(hostile)
    with pytest.raises(DirpruneError):
        read(study.root / name)
    assert not mark.exists()


def test_scores_that_are_none_are_computed_again(tmp_path: Path, hostile: bytes, mark: Path) -> None:
    cache = ScoreCache(tmp_path / "scores")
    cache.path("key").write_bytes(hostile)
    scores, was_there = cache.get_or_compute("key", lambda: {"conv1": torch.ones(2)})
    assert not was_there
    assert scores["conv1"].tolist() == [1, 1]
    assert not mark.exists()

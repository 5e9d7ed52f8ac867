"""The command line run inside the test's own process, and weights of a network that it trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import torch

from dirprune.architecture import Architecture
from dirprune.cli.app import program
from dirprune.cli.errors import run_command
from dirprune.files import write_json
from dirprune.identity import identify
from dirprune.records.events import EventLog
from dirprune.records.folder import StudyFolder
from dirprune.records.models import save_model
from dirprune.study.space import Configuration
from dirprune.surgery import compact
from dirprune.tracing import find_groups
from dirprune.tuning import storage
from tests.integration import toy_study


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status and what it printed."""

    status: int
    output: str
    errors: str


Run = Callable[..., Result]

OBJECTIVES = [["val_accuracy", "maximize"], ["macs", "minimize"]]
GROUPS = {"conv1": 10, "conv2": 20, "linear1": 100, "linear2": 25}
TRIALS = [  # accuracy, macs, kept: the third is dominated by the second, the fourth still runs
    (0.99, 498_750, (10, 20, 100, 25)),
    (0.98, 236_366, (8, 9, 36, 17)),
    (0.90, 300_000, (8, 12, 36, 17)),
    (None, 112_475, (5, 5, 5, 5)),
]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `dirprune` with arguments, in an empty working folder of the test's own."""
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        status = run_command(program, [str(argument) for argument in arguments], name="dirprune")
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of LeNet-5 after some epochs on the digits, written by `dirprune train` with seed 3."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("weights") / "lenet5.safetensors"
    assert run_command(program, ["train", "--epochs", "4", "--seed", "3", "--output", str(path)]) == 0
    return path


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study with two trials on its front, a dominated one and a running one."""
    folder = StudyFolder(tmp_path / "lenet")
    folder.root.mkdir()
    payload = {
        "name": "lenet",
        "id": "1",
        "optuna_study": "lenet-1",
        "storage": "journal",
        "dense_costs": {"macs": 498_750, "parameters": 40_225},
        "description": {
            "objectives": OBJECTIVES,
            "groups": GROUPS,
            "reference_point": {"val_accuracy": 0.1, "macs": 498_750},
            "seed": 0,
        },
    }
    write_json(folder.study_json, payload, schema=storage.STUDY_SCHEMA)
    study = storage.create_study(folder, payload)
    for number, (accuracy, macs, kept) in enumerate(TRIALS):
        add_trial(folder, study, number, accuracy, macs, kept)
    return folder


def add_trial(
    folder: StudyFolder,
    study: optuna.Study,
    number: int,
    accuracy: float | None,
    macs: int,
    kept: tuple[int, ...],
    constraints: Mapping[str, float] | None = None,
    method: str = "magnitude",
) -> None:
    trial = study.ask()
    for metric, excess in (constraints or {}).items():
        trial.set_constraint(metric, excess)
    architecture = Architecture(dict(zip(GROUPS, kept, strict=True)))
    source = "dense" if number == 0 else "sampler"
    configuration = Configuration(number, source, architecture, method, {}, {})
    trial.set_user_attr(storage.SOURCE, source)
    trial.set_user_attr(storage.CONFIGURATION, configuration.to_json())
    trial.set_user_attr(storage.COSTS, {"macs": macs, "parameters": macs // 10})
    log = EventLog(folder.events(number), "attempt")
    log.append("started", resumed_from=None)
    if accuracy is not None:
        metrics = {"val_accuracy": accuracy, "test_accuracy": accuracy - 0.01}
        log.append("finished", metrics=metrics)
        storage.settle(study, number, optuna.trial.TrialState.COMPLETE, {}, [accuracy, macs])


@pytest.fixture
def own(folder: StudyFolder) -> StudyFolder:
    """The study with a network of the user's own, and a model of trial 1."""
    base = {**identify(toy_study.Toy), "options": {}}
    payload = json.loads(folder.study_json.read_text())
    payload["description"]["network"] = base
    folder.study_json.write_text(json.dumps(payload))
    kept = {"first": [0, 3, 5], "second": [1, 2]}
    dense, example = toy_study.Toy(), torch.zeros(2, 6)
    save_model(
        folder.model_dir(1),
        compact(dense, find_groups(dense, example), kept, example),
        architecture={name: len(channels) for name, channels in kept.items()},
        kept=kept,
        base=base,
        input_shape=(6,),
        normalisation={},
        metrics={"macs": 5.0},
    )
    return folder

"""The command line run inside the test's own process, and weights of a network that it trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from dirprune.cli.app import program
from dirprune.cli.errors import run_command


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status and what it printed."""

    status: int
    output: str
    errors: str


Run = Callable[..., Result]


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

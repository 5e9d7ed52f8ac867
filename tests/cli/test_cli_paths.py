"""Names that read as paths lead nowhere: studies, trials and registered models stay in their own folders."""

from __future__ import annotations

import pytest

from dirprune.cli.errors import run_command
from dirprune.cli.study import make_command
from dirprune.records.folder import StudyFolder
from dirprune.study.spec import StudySpec
from tests.cli.conftest import Run

PATHS = ("../outside", "..", "/etc", "a/b", "a/../../b", ".hidden", "")


@pytest.mark.parametrize("name", PATHS)
def test_study_name_that_is_a_path_is_refused_before_anything_is_written(
    name: str, tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command = make_command(StudySpec(name="lenet", network="lenet5", data="digits"))
    assert run_command(command, ["--name", name], name="study") == 2
    assert "study name must be one plain folder name" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.name != "here"] == []


@pytest.mark.parametrize("trial", ["../../outside", "/etc/passwd", "0/../1", "..", "1/..", "-1", "٣"])
def test_trial_that_is_a_path_is_refused(run: Run, folder: StudyFolder, trial: str) -> None:
    result = run("export", folder.root, f"--trial={trial}", "--format=pt2")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "expected the number of a trial with a network" in result.errors
    assert not (folder.root / "exports").exists()


@pytest.mark.parametrize("name", ["../outside", "a/b", "models:/a", ""])
def test_registered_name_that_is_a_path_is_refused(run: Run, folder: StudyFolder, name: str) -> None:
    result = run("sync", folder.root, f"--register={name}")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "--register: expected a name of letters" in result.errors
    assert not (folder.output / "mlflow.db").exists()


def test_a_model_cannot_be_registered_where_nothing_is_tracked(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = make_command(StudySpec(name="lenet", network="lenet5", data="digits"))
    assert run_command(command, ["--register", "lenet", "--no-tracking"], name="study") == 2
    assert capsys.readouterr().err == (
        "error: --register: expected tracking, got --no-tracking; leave one out\n"
    )

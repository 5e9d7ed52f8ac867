"""`dirprune export` finds the trial that was meant, or says in one line which there are."""

from __future__ import annotations

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.records.front import find_member, mark_front, sort_front
from dirprune.records.models import load_model
from tests.cli.conftest import Run
from tests.records.example_study import OBJECTIVES, make_trial
from tests.records.test_export import model  # noqa: F401  (a fixture)


@pytest.fixture
def study(folder: StudyFolder, model: object) -> StudyFolder:  # noqa: F811
    """The study with a network for trial 1, which is on its front."""
    folder.models_dir.mkdir()
    source = folder.output / "models" / "7"
    source.rename(folder.model_dir(1))
    return folder


def test_smallest_network_is_exported_with_its_difference(run: Run, study: StudyFolder) -> None:
    result = run("export", study.root, "--trial", "smallest", "--format", "pt2")
    assert (result.status, result.errors) == (0, "")
    lines = result.output.splitlines()
    assert lines[0].startswith("trial 1: largest difference of outputs from the network's own ")
    assert float(lines[0].split()[-1]) < 1e-5
    assert (study.root / "exports" / "1.pt2").stat().st_size > 0


def test_trial_by_number_goes_where_it_is_told(run: Run, study: StudyFolder) -> None:
    target = study.output / "here"
    assert (
        run("export", study.root, "--trial", "1", "--format", "safetensors", "--output", target).status == 0
    )
    load_model(target)


@pytest.mark.parametrize("trial", ["99", "../1", "-1", "last", ""])
def test_trial_that_is_not_there_is_one_line_with_those_that_are(
    run: Run, study: StudyFolder, trial: str
) -> None:
    result = run("export", study.root, "--trial", trial, "--format", "pt2")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "on the front: 1, 0" in result.errors
    assert not (study.root / "exports").exists()


def test_trial_of_the_front_without_its_network_is_one_line(run: Run, study: StudyFolder) -> None:
    result = run("export", study.root, "--trial", "best", "--format", "pt2")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "expected the folder of a stored model, found nothing at" in result.errors


def test_members_of_a_front_are_what_their_names_say() -> None:
    records = mark_front(
        [
            make_trial(0, "dense", 1.0, 0.99),
            make_trial(1, "sampler", 0.5, 0.98),
            make_trial(2, "sampler", 0.45, 0.60),
            make_trial(3, "sampler", 0.2, 0.50),
        ],
        OBJECTIVES,
    )
    front = sort_front(records)
    assert [find_member(front, OBJECTIVES, name).number for name in ("best", "smallest", "knee")] == [0, 3, 1]
    assert find_member(front[:1], OBJECTIVES, "knee").number == 3

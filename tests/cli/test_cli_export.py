"""`dirprune export` finds the trial that was meant, or says in one line which there are."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from playwright.sync_api import expect

from dirprune.records.events import EventLog
from dirprune.records.folder import StudyFolder
from dirprune.records.front import find_member, mark_front, sort_front
from dirprune.records.models import load_model
from tests.browser import open_browser, open_page
from tests.cli.conftest import Run
from tests.integration import toy_study
from tests.records.example_study import OBJECTIVES, make_trial
from tests.records.test_export import store_lenet


@pytest.fixture
def study(folder: StudyFolder) -> StudyFolder:
    """The study with a network for trial 1, which is on its front."""
    store_lenet(folder.model_dir(1), seed=3)
    return folder


@pytest.fixture
def finals(study: StudyFolder) -> StudyFolder:
    """The study with two finalists: trial 1, of three seeds, on the final front, and trial 2 behind it."""
    for number, accuracies in ((1, (0.97, 0.985, None)), (2, (0.96,))):
        for seed, accuracy in enumerate(accuracies):
            training = study.finalist(number, seed)
            log = EventLog(training.events(number), "attempt")
            log.append("started", resumed_from=None)
            if accuracy is not None:
                metrics = {"val_accuracy": accuracy, "macs": 100_000 * number}
                log.append("finished", metrics=metrics)
                store_lenet(training.model_dir(number), seed)
    return study


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


@pytest.mark.parametrize(
    ("kind", "place"), [("pt2", "study.json"), ("pt2", "models/1/new.pt2"), ("safetensors", "")]
)
def test_nothing_is_exported_among_what_the_study_is_made_of(
    run: Run, study: StudyFolder, kind: str, place: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.root.rglob("*")}
    target = study.root / place
    result = run("export", study.root, "--trial", "1", "--format", kind, "--output", target)
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "expected --output outside of every study's folder" in result.errors
    assert {path: path.stat().st_mtime_ns for path in study.root.rglob("*")} == before


@pytest.mark.parametrize(
    ("kind", "name"), [("pt2", "small.pt2"), ("safetensors", "small"), ("safetensors", "")]
)
def test_an_export_among_the_others_may_have_a_name_of_its_own(
    run: Run, study: StudyFolder, kind: str, name: str
) -> None:
    target = study.root / "exports" / name
    assert run("export", study.root, "--trial", "1", "--format", kind, "--output", target).status == 0
    assert target.is_file() if kind == "pt2" else load_model(target)


@pytest.mark.parametrize("trial", ["99", "../1", "-1", "last", ""])
def test_trial_that_is_not_there_is_one_line_with_those_that_are(
    run: Run, study: StudyFolder, trial: str
) -> None:
    result = run("export", study.root, "--trial", trial, "--format", "pt2")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "on the front: 1, 0" in result.errors
    assert not (study.root / "exports").exists()


@pytest.mark.parametrize("which", ["1", "best", "smallest", "knee"])
def test_finalist_is_its_best_seeds_network(run: Run, finals: StudyFolder, which: str) -> None:
    result = run("export", finals.root, "--finalist", which)
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith("finalist 1, seed 1: largest difference of outputs ")
    exported = torch.export.load(finals.root / "exports" / "finalist-1.pt2").module()
    images = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(exported(images), load_model(finals.finalist(1, 1).model_dir(1))(images))


def test_finalist_that_is_not_on_the_final_front_goes_by_its_number(run: Run, finals: StudyFolder) -> None:
    result = run("export", finals.root, "--finalist", "2", "--format", "safetensors")
    assert (result.status, result.errors) == (0, "")
    load_model(finals.root / "exports" / "finalist-2")


@pytest.mark.parametrize("finalist", ["0", "99", "../1", "last", ""])
def test_finalist_that_is_not_there_is_one_line_with_those_that_are(
    run: Run, finals: StudyFolder, finalist: str
) -> None:
    result = run("export", finals.root, "--finalist", finalist)
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "expected the number of a finalist, or of the final front best, smallest, knee" in result.errors
    assert "finalists: 1, 2" in result.errors


def test_study_without_finalists_has_no_best_one(run: Run, study: StudyFolder) -> None:
    result = run("export", study.root, "--finalist", "best")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "finalists: none" in result.errors


@pytest.mark.parametrize(("chosen", "got"), [((), "neither"), (("--trial", "1", "--finalist", "1"), "both")])
def test_without_a_choice_those_that_are_there_are_said(
    run: Run, finals: StudyFolder, chosen: tuple[str, ...], got: str
) -> None:
    result = run("export", finals.root, *chosen)
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert (
        f"expected --trial N or --finalist N, got {got}; on the front: 1, 0; finalists: 1, 2" in result.errors
    )


def test_number_is_found_where_the_database_of_trials_is_not_given(run: Run, finals: StudyFolder) -> None:
    payload = json.loads(finals.study_json.read_text())
    finals.study_json.write_text(json.dumps({**payload, "storage": "postgresql://host/trials"}))
    finals.journal.unlink()
    for chosen in ("--trial", "--finalist"):
        result = run("export", finals.root, chosen, "1")
        assert (result.status, result.errors) == (0, "")
    result = run("export", finals.root, "--finalist", "best")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "give a database with --optuna-storage URL" in result.errors


@pytest.mark.parametrize("kind", ["pt2", "safetensors"])
def test_ones_own_network_is_exported_with_the_function_that_made_it(
    run: Run, own: StudyFolder, kind: str
) -> None:
    arguments = ("export", own.root, "--trial", "1", "--format", kind)
    without = run(*arguments)
    assert (without.status, without.errors.count("\n")) == (2, 1)
    assert "the network of study lenet is your own; try again with --network FILE.py:Toy" in without.errors
    assert not (own.root / "exports").exists()
    result = run(*arguments, "--network", f"{toy_study.__file__}:Toy")
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith("trial 1: largest difference of outputs ")


def read_commands(study: StudyFolder, trial: int) -> list[list[str]]:
    """Return the words of each command that the study's page offers for a trial."""
    with open_browser() as browser, open_page(browser, "file:///") as page:
        page.goto(study.front_html.as_uri())
        page.locator("#trials").get_by_role("button", name=str(trial), exact=True).click()
        expect(page.locator("#details h2")).to_contain_text(f"Trial {trial} of")
        return [shlex.split(text) for text in page.locator("#details code").all_inner_texts()]


@pytest.mark.slow
def test_commands_of_the_page_run_as_they_are(run: Run, finals: StudyFolder) -> None:
    moved = StudyFolder(finals.output / "it's $HOME")
    finals.root.rename(moved.root)
    assert run("front", moved.root).status == 0
    payload = json.loads(moved.study_json.read_text())
    moved.study_json.write_text(json.dumps({**payload, "storage": "postgresql://host/trials"}))
    commands = read_commands(moved, 1)
    assert [words[0] for words in commands] == ["dirprune", "dirprune"]
    for words in commands:
        result = run(*words[1:])
        assert (result.status, result.errors) == (0, "")
    assert {path.name for path in (moved.root / "exports").iterdir()} == {"1.pt2", "finalist-1.pt2"}


@pytest.mark.slow
def test_trial_behind_the_front_is_offered_as_finalist_alone(run: Run, finals: StudyFolder) -> None:
    assert run("front", finals.root).status == 0
    (words,) = read_commands(finals, 2)
    result = run(*words[1:])
    assert (result.status, result.errors) == (0, "")
    assert result.output.startswith("finalist 2, seed 0: ")


@pytest.mark.slow
def test_command_of_the_page_has_a_place_for_the_file_of_ones_own_network(run: Run, own: StudyFolder) -> None:
    assert run("front", own.root).status == 0
    (words,) = read_commands(own, 1)
    assert "FILE.py:Toy" in words
    result = run(*(word.replace("FILE.py", str(toy_study.__file__)) for word in words[1:]))
    assert (result.status, result.errors) == (0, "")


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

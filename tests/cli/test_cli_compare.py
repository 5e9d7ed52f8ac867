"""`dirprune compare` over folders of studies: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dirprune.files import write_json
from dirprune.records.ending import write_ending
from dirprune.records.folder import StudyFolder
from dirprune.study.difference import complete
from dirprune.tuning import storage
from tests.cli.conftest import GROUPS, OBJECTIVES, Run, add_trial

DENSE = (0.99, 400_000, (10, 20, 100, 25))


def make_study(
    root: Path,
    method: str,
    seed: int,
    accuracy: float,
    database: str = "",
    sampler: str = "ehvi",
    **changes: Any,
) -> Path:
    """Make the folder of a study that has ended: the dense network and one of half its cost."""
    folder = StudyFolder(root / f"{method}-{seed}")
    folder.root.mkdir()
    default = complete({})
    description = {
        **default,
        "data": {"name": "digits", "fingerprint": "a", "validation_from": "train:0.1"},
        "objectives": OBJECTIVES,
        "groups": GROUPS,
        "space": {**default["space"], "methods": {method: {}}},
        "reference_point": {"val_accuracy": 0.1, "macs": 400_000},
        "min_val_accuracy": "dense-0.19",
        "weights": "0123456789",
        "seed": seed,
        **changes,
    }
    payload = {
        "name": folder.root.name,
        "id": folder.root.name,
        "optuna_study": folder.root.name,
        "storage": storage.locate(database),
        "dense": {"metrics": {"val_accuracy": 0.99, "test_accuracy": 0.98}},
        "dense_costs": {"macs": 400_000, "parameters": 40_225},
        "description": description,
        "samplers": [sampler],
    }
    write_json(folder.study_json, payload, schema=storage.STUDY_SCHEMA)
    study = storage.create_study(folder, payload, database)
    add_trial(folder, study, 0, *DENSE)
    add_trial(folder, study, 1, accuracy, 200_000, (8, 9, 36, 17))
    write_ending(folder)
    return folder.root


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two methods in two seeds each, beside a folder that is no study."""
    root = tmp_path / "out"
    (root / "dense").mkdir(parents=True)
    for method, seed, accuracy in (("magnitude", 0, 0.9), ("magnitude", 1, 0.96), ("random", 0, 0.85)):
        make_study(root, method, seed, accuracy)
    make_study(root, "random", 1, 0.97)
    return root


def test_compare_prints_groups_pairs_and_what_validation_chose(run: Run, output: Path) -> None:
    result = run("compare", *sorted(output.iterdir()), "--budgets", "0.5,0.25")
    assert (result.status, result.errors) == (0, f"left out, no studies: {output / 'dense'}\n")
    lines = result.output.splitlines()
    assert lines[0] == (
        "4 studies of lenet5 on digits; dense: val_accuracy 0.9900, test_accuracy 0.9800, macs 400,000"
    )
    assert lines[1].startswith("hypervolumes begin at val_accuracy 0.8000, macs 400,000;")
    # (0.9 - 0.8) / 2 and (0.96 - 0.8) / 2; (0.85 - 0.8) / 2 and (0.97 - 0.8) / 2
    assert lines[4].split() == ["magnitude", "2", "4", "0", "0", "0.0650", "+-", "0.0212"]
    assert lines[5].split() == ["random", "2", "4", "0", "0", "0.0550", "+-", "0.0424"]
    assert lines[6] == "equal seeds (0, 1): magnitude above random in 1 of 2 pairs"
    told = [" ".join(line.split()) for line in lines[10:13]]
    assert told[0] == "magnitude 0.5 200,000 2 of 2 0.9300 +- 0.0424 0.9200 +- 0.0424 200,000"
    assert told[1] == "random 0.5 200,000 2 of 2 0.9100 +- 0.0849 0.9000 +- 0.0849 200,000"
    assert told[2] == "magnitude 0.25 100,000 0 of 2"


def test_compare_writes_a_table_or_a_json_and_a_picture(run: Run, output: Path, tmp_path: Path) -> None:
    studies = [output / "magnitude-0", output / "random-0"]
    table, picture, stored = (tmp_path / name for name in ("c.csv", "c.png", "c.json"))
    result = run("compare", *studies, "--by", "study", "--output", table, "--plot", picture)
    assert (result.status, result.errors) == (0, "")
    assert result.output.endswith(f"\nfiles: {table}, {picture}\n")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == [*["magnitude-0"] * 3, *["random-0"] * 3]
    assert rows[0]["hypervolume_std"] == ""
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run("compare", *studies, "--output", stored).status == 0
    assert [group["name"] for group in json.loads(stored.read_text())["groups"]] == ["magnitude", "random"]


def test_compare_warns_in_one_line_of_each_other_difference(run: Run, output: Path) -> None:
    other = make_study(output, "taylor", 0, 0.9, sampler="tpe", epochs=3.0)
    StudyFolder(other).ending_json.unlink()
    result = run("compare", output / "random-0", other)
    assert result.status == 0
    first, second, third = result.errors.splitlines()
    assert first == "warning: the studies differ in epochs: 5.0 (random-0); 3.0 (taylor-0)"
    assert second == "warning: the studies differ in samplers: ehvi (random-0); tpe (taylor-0)"
    assert third.startswith("warning: unfinished studies: the last run is at work, was killed, or was of")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("magnitude-0",), "expected two studies or more to compare, got 1; give their folders"),
        (("magnitude-0", "dense"), "got 1 (no studies: "),
        (("magnitude-0", "nowhere"), "found no study.json"),
        (("magnitude-0", "magnitude-0"), "expected each study once"),
        (("magnitude-0", "other-0"), "expected studies of one data set, got digits in magnitude-0 and mnist"),
        (("magnitude-0", "random-0", "--budgets", "0.5,2"), "in (0, 1], got '2'"),
        (
            ("magnitude-0", "random-0", "--output", "table.txt"),
            "expected --output to end in .csv or .json, got table.txt; try table.csv",
        ),
        (("magnitude-0", "random-0", "--output", "a/table.CSV"), "got a/table.CSV; try a/table.csv"),
        (
            ("magnitude-0", "random-0", "--plot", "fronts.svg"),
            "expected --plot to end in .png, got fronts.svg; try fronts.png",
        ),
        (("magnitude-0", "random-0", "--output", "x.csv", "--plot", "x.csv"), "got x.csv; try x.png"),
        (("magnitude-0", "random-0", "--floor", "0.5"), "expected a least accuracy of at least 0.8, below"),
        (("magnitude-0", "random-0", "--by", "seed"), "unknown 'seed'"),
    ],
)
def test_what_cannot_be_compared_ends_in_one_line(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    make_study(output, "other", 0, 0.9, data={"name": "mnist", "fingerprint": "b"})
    monkeypatch.chdir(output)
    result = run("compare", *arguments)
    assert (result.status, result.output, result.errors.count("\n")) == (2, "", 1)
    assert expected in result.errors


@pytest.mark.parametrize(
    ("option", "place", "hint"),
    [
        ("--plot", "magnitude-0/study.json", "in the study magnitude-0; try magnitude-0-study.png"),
        (
            "--plot",
            "magnitude-0/front.png",
            "got magnitude-0/front.png, in the study magnitude-0; try magnitude-0-front.png",
        ),
        ("--output", "magnitude-0/study.json", "expected --output outside of every study's folder"),
        ("--output", "random-0/../link/new/c.csv", "in the study magnitude-0; try magnitude-0-c.csv"),
        ("--output", "random-1/trials.csv", "in the study random-1"),  # which is not even compared
    ],
)
def test_no_option_replaces_a_file_of_a_study(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch, option: str, place: str, hint: str
) -> None:
    (output / "link").symlink_to(output / "magnitude-0")
    monkeypatch.chdir(output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    result = run("compare", "magnitude-0", "random-0", option, place)
    assert (result.status, result.output, result.errors.count("\n")) == (2, "", 1)
    assert hint in result.errors
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_a_comparison_lies_beside_the_studies_or_in_what_is_none(run: Run, output: Path) -> None:
    studies = [output / "magnitude-0", output / "random-0"]
    for path in (output / "c.csv", output / "dense" / "c.csv"):
        assert run("compare", *studies, "--output", path).status == 0
        assert path.exists()


def test_studies_of_one_name_go_by_their_paths(run: Run, output: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "magnitude-0"
    shutil.copytree(output / "magnitude-0", copy)
    stored = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps({**stored, "id": "another"}))
    result = run("compare", output / "magnitude-0", copy, "--by", "study")
    assert (result.status, result.errors) == (0, "")
    assert f"\n{copy} " in result.output


def test_studies_in_a_database_compare_with_those_in_journals(run: Run, output: Path, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'trials.db'}"
    stored = make_study(output, "taylor", 0, 0.9, database)
    result = run("compare", output / "magnitude-0", stored, "--optuna-storage", database)
    assert (result.status, result.errors) == (0, "")
    assert "magnitude above taylor in 0 of 1 pair, and as high in 1" in result.output
    refused = run("compare", output / "magnitude-0", stored)
    assert (refused.status, refused.output) == (2, "")
    assert "give a database with --optuna-storage URL" in refused.errors

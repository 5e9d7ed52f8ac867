"""Files that commands write where they are told to: what they end in, and that none is a study's."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirprune.cli.output_files import check_output_files
from dirprune.errors import ConfigurationError
from tests.cli.conftest import Run

RANK = ("rank", "--weights", "w.safetensors", "--method", "random")


@pytest.mark.parametrize(
    ("arguments", "place", "hint"),
    [
        ((*RANK, "--output"), "lenet/study.json", "lenet-study.json"),
        ((*RANK, "--plot"), "lenet/front.png", "lenet-front.png"),
        (("train", "--output"), "lenet/models/3/model.safetensors", "lenet-model.safetensors"),
        (("train", "--output"), "lenet/front.csv", "lenet-front.safetensors"),
    ],
)
def test_no_command_replaces_a_file_of_a_study(
    run: Run, arguments: tuple[str, ...], place: str, hint: str
) -> None:
    Path("lenet").mkdir()
    Path("lenet/study.json").write_text("{}")
    result = run(*arguments, place)
    option = arguments[-1]
    assert (result.status, result.output) == (2, "")
    assert result.errors.endswith(
        f"expected {option} outside of every study's folder, got {place}, in the study lenet; try {hint}\n"
    )
    assert [path.name for path in Path().rglob("*")] == ["lenet", "study.json"]
    check_output_files({option: Path(hint)})


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("table.txt", "table.csv"),
        ("results/table.CSV", "results/table.csv"),
        ("results/table", "results/table.csv"),
        (".csv", "output.csv"),
        ("results/.csv", "results/output.csv"),
    ],
)
def test_another_ending_is_answered_with_a_file_in_the_same_folder(
    given: str, hint: str, tmp_path: Path
) -> None:
    endings = {"--output": (".csv", ".json")}
    with pytest.raises(ConfigurationError) as raised:
        check_output_files({"--output": tmp_path / given}, endings)
    told = f"expected --output to end in .csv or .json, got {tmp_path / given}; try {tmp_path / hint}"
    assert str(raised.value) == told
    check_output_files({"--output": tmp_path / hint}, endings)

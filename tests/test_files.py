"""Files are whole or absent, and JSON files say their schema."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dirprune.errors import StudyError
from dirprune.files import read_json, write_atomically, write_json


def test_a_file_gets_its_name_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with write_atomically(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".csv"
    assert path.read_text() == "all of it"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write_half() -> None:
        with write_atomically(path) as temporary:
            temporary.write_text("half of")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_file_that_its_writer_kept_to_itself_may_be_read_as_others_are(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with write_atomically(tmp_path / "scores.safetensors") as temporary:
            save_file({"scores": torch.ones(1)}, temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "scores.safetensors").stat().st_mode) == mode


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "table.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back_without_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    write_json(path, {"name": "größe", "widths": [1, 2]}, schema=3)
    assert read_json(path, schema=3) == {"name": "größe", "widths": [1, 2]}
    assert next(iter(json.loads(path.read_text(encoding="utf-8")))) == "schema"


def test_a_payload_that_is_no_strict_json_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "a.json", {"loss": math.nan}, schema=1)
    with pytest.raises(ValueError, match="must not have a key 'schema'"):
        write_json(tmp_path / "a.json", {"schema": 2}, schema=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"expected a file at .*a\.json, found none"),
        (b'{"schema": 1, "na', r"expected JSON in .*a\.json, got something else"),
        (b"\xff\xfe", r"expected JSON in .*a\.json, got something else"),
        (b"[1]", r"expected a JSON object in .*a\.json, got a list"),
        (b'{"schema": 2}', r"expected schema 1 in .*a\.json, got 2; it was written by another version"),
        (b"{}", r"expected schema 1 in .*a\.json, got None"),
    ],
)
def test_a_file_that_is_not_the_expected_one_is_one_clear_line(tmp_path: Path, content, message) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError, match=message) as caught:
        read_json(path, schema=1)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"cannot read .*: Is a directory"):
        read_json(tmp_path, schema=1)

"""A network of one's own is the study's by its source and by what it carries."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dirprune.cli.own_network import find_in_file, find_network, load_own_network, run_file
from dirprune.errors import ConfigurationError
from dirprune.identity import complete_identity, identify

SCRIPT = """
import torch
from torch import nn

SCALES, WIDTH = torch.tensor([1.0]), 4

def make(width=WIDTH):
    network = nn.Linear(3, width)
    network.register_buffer("scales", SCALES.clone())
    return network
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nn.Linear(3", "nn.Linear(5", "whose source is another; try the file as it was"),
        ("4\n", "6\n", r"which carries other values \(defaults, .*\); try the file as it was"),
        ("[1.0]", "[2.0]", r"which carries other values \(.*, tensors\); try the file as it was"),
    ],
)
def test_what_differs_in_a_network_is_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(SCRIPT)
    (tmp_path / "other.py").write_text(SCRIPT.replace(old, new))
    described = identify(find_in_file(f"{tmp_path}/study.py:make", ""))
    assert load_own_network(f"{tmp_path}/study.py:make", described).__name__ == "make"
    with pytest.raises(ConfigurationError, match=rf"of this study, make, got .*other\.py:make, {message}"):
        load_own_network(f"{tmp_path}/other.py:make", described)


def test_a_file_is_run_once_and_another_of_its_name_is_another_module(tmp_path: Path) -> None:
    modules = []
    for folder in ("a", "b", "a/../a"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "once.py").write_text(f"VALUE = {folder!r}")
        modules.append(run_file(tmp_path / folder / "once.py"))
    first, second, again = modules
    assert again is first
    assert [first.VALUE, second.VALUE] == ["a", "b"]
    assert first.__name__ == "_own_once" != second.__name__
    assert sys.modules[second.__name__] is second


def test_network_of_an_earlier_study_is_told_by_what_that_knows(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(SCRIPT)
    described = identify(find_in_file(f"{tmp_path}/study.py:make", ""))
    del described["content_sha256"]
    load_own_network(f"{tmp_path}/study.py:make", described)


def test_a_module_that_leaves_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(
        ConfigurationError,
        match=r"^the module leaves cannot be imported: SystemExit: 0; try it below if __name",
    ):
        find_network("leaves:build")


@pytest.mark.parametrize("module", ["__main__", "_own_own"])
def test_the_example_names_no_file_that_is_not_there(module: str) -> None:
    with pytest.raises(ConfigurationError, match=r"got 'study\.py'; try FILE\.py:make$"):
        load_own_network("study.py", {"module": module, "name": "make"})


def test_content_that_a_network_has_gained_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(SCRIPT.replace("torch.tensor([1.0])", "nn.Linear"))
    (tmp_path / "other.py").write_text(SCRIPT)
    described = complete_identity(identify(find_in_file(f"{tmp_path}/study.py:make", "")))
    load_own_network(f"{tmp_path}/study.py:make", described)
    with pytest.raises(ConfigurationError, match="which carries other values"):
        load_own_network(f"{tmp_path}/other.py:make", described)

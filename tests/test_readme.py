"""The documents name what exists: imports, commands, options, files, make targets."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import click
import pytest

from dirprune.cli.app import COMMANDS, LazyGroup, program

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "mlflow/README.md", "cluster/README.md"]


def read_blocks(document: str) -> list[str]:
    """Return the Python blocks of a document, dedented."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)
    return ["\n".join(line[len(indent) :] for line in block.splitlines()) for indent, block in found]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_blocks_parse_and_import_what_exists(document: str) -> None:
    for block in read_blocks(document):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{document}: {node.module}.{alias.name}"


def test_readme_shows_how_to_use_dirprune_from_python() -> None:
    assert len(read_blocks("README.md")) >= 5


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_targets_exist(document: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)`", text, flags=re.MULTILINE):
        assert "".join(target) in targets


def test_commands_in_the_readme_have_the_options_that_it_names() -> None:
    assert isinstance(program, LazyGroup)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"`dirprune ([a-z-]+)([^`]*)`", text)
    assert {name for name, _ in lines} == set(COMMANDS)
    for name, rest in lines:
        command = program.get_command(click.Context(program), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, name

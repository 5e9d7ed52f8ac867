"""The documents name what exists: imports, commands, options, files, make targets; the study in them runs."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from dirprune.cli.app import COMMANDS, LazyGroup, program
from dirprune.networks import create_network, save_weights
from dirprune.records.tables import load_front

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


def test_measurements_that_the_code_refers_to_have_a_section_of_that_name() -> None:
    sources = [*(ROOT / "dirprune").rglob("*.py"), *(ROOT / "studies").glob("*.py")]
    found = [
        reference
        for path in sources
        for reference in re.findall(r"(benchmarks/[\w/]+\.md)(#[\w-]+)?", path.read_text(encoding="utf-8"))
    ]
    assert len(found) >= 5
    for document, section in found:
        titles = re.findall(r"^#+ (.*)", (ROOT / document).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert section in {"#" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


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


REAL_DATA = """
    from sklearn.datasets import load_diabetes

    inputs, targets = load_diabetes(return_X_y=True)
    inputs = torch.as_tensor(inputs[:, :8] / inputs.std(), dtype=torch.float32)
    targets = torch.as_tensor((targets - targets.mean()) / targets.std(), dtype=torch.float32)[:, None]
    inputs, targets, test_inputs, test_targets = inputs[:350], targets[:350], inputs[350:], targets[350:]
"""
"""Stands where a user's own data would: eight properties of patients, and how ill they were a year later."""


def run_program(path: Path, *arguments: str) -> str:
    """Run a program in its folder and return what it says."""
    done = subprocess.run(
        [sys.executable, path, *arguments],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_study_of_ones_own_runs_as_the_readme_shows_it(tmp_path: Path) -> None:
    study, call = find_block("study_main(spec)"), find_block("run_study(spec, ")
    study, n_filled = re.subn(r"^ +inputs, .* = \.\.\..*\n", REAL_DATA, study, flags=re.MULTILINE)
    assert n_filled == 1
    (tmp_path / "pumps.py").write_text(f"import torch\n{study}")
    small = ("--trials", "4", "--epochs", "2", "--dense-epochs", "4")
    said = run_program(tmp_path / "pumps.py", "--no-tracking", "--output", "from_command_line", *small)
    assert "Pareto front" in said
    assert load_front(tmp_path / "from_command_line" / "pumps")
    fewer = "spec = spec.changed(trials=4, epochs=2, dense_epochs=4)"
    (tmp_path / "program.py").write_text(f"from pumps import spec\n{fewer}\n{call}")
    printed = run_program(tmp_path / "program.py").splitlines()
    front = load_front(tmp_path / "output" / "pumps")
    told = [f"{p.trial} {p.metrics['val_mae']} {p.metrics['macs']}" for p in front]
    assert told
    assert printed[-len(told) :] == told


@pytest.mark.slow
def test_a_network_is_scored_cut_trained_and_judged_from_python(tmp_path: Path) -> None:
    weights = tmp_path / "output" / "lenet5-digits-seed0.safetensors"
    weights.parent.mkdir()
    save_weights(create_network("lenet5", seed=0), weights)
    steps = find_block("reconstruct=True") + find_block("compute_scores").replace("5 * len", "1 * len")
    shown = "print(sorted(scores), pruned.network.conv1.out_channels)\n"
    (tmp_path / "program.py").write_text(steps + shown)
    printed = run_program(tmp_path / "program.py").splitlines()
    assert re.match(r"\d+ \{'train_loss': ", printed[0])
    assert printed[-1] == "['conv1', 'conv2', 'linear1', 'linear2'] 8"


def find_block(content: str) -> str:
    """Return the one Python block of the README that holds something."""
    (block,) = (block for block in read_blocks("README.md") if content in block)
    return f"{block}\n"

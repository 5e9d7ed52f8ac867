"""Help comes at once: what a command needs is imported when it runs, not when it says how to call it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dirprune.cli import options
from dirprune.cli.app import COMMANDS
from dirprune.importance.base import MEMORY_MB
from dirprune.recipe import Recipe

ROOT = Path(__file__).parents[2]
HEAVY = frozenset(
    {
        "torch",
        "numpy",
        "scipy",
        "sklearn",
        "pandas",
        "shap",
        "ray",
        "optuna",
        "mlflow",
        "matplotlib",
    }
)
WITH_TORCH = frozenset({"torch", "numpy"})


def run(script: str, *arguments: str) -> tuple[str, set[str]]:
    """Run a script; return what it printed, and which heavy libraries it had imported by its end."""
    code = (
        "import atexit, runpy, sys\n"
        f"atexit.register(lambda: print(*sorted({set(HEAVY)!r} & set(sys.modules)), file=sys.stderr))\n"
        f"sys.argv = {[script, *arguments]!r}\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, set(done.stderr.split())


@pytest.mark.parametrize("arguments", [(), *((command,) for command in COMMANDS)], ids=" ".join)
def test_help_of_a_command_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    said, imported = run("dirprune/__main__.py", *arguments, "--help")
    assert said.startswith("Usage: dirprune")
    assert "--help" in said
    assert imported == set()


@pytest.mark.parametrize(
    ("script", "argument", "expected"),
    [
        ("dirprune/__main__.py", "rank --list", "\ntaylor: "),
        *(
            pytest.param(
                str(path.relative_to(ROOT)),
                "--help",
                "--finalists N",
                marks=[] if path.stem == "lenet" else pytest.mark.slow,
            )
            for path in (ROOT / "studies").glob("*.py")
        ),
    ],
)
def test_what_knows_methods_and_networks_imports_torch_and_nothing_above_it(
    script: str, argument: str, expected: str
) -> None:
    said, imported = run(script, *argument.split())
    assert expected in said
    assert imported <= WITH_TORCH


def test_help_says_how_long_and_how_fast_weights_are_trained_by_default() -> None:
    said, _ = run("dirprune/__main__.py", "train", "--help")
    told = " ".join(said.split())
    assert "Default: 20 from scratch, 10 after pruning, at most 200 with --early-stopping." in told
    assert f"it falls along a cosine. Default: the recipe's; {Recipe.lr:g} of plain." in told


def test_help_of_a_study_shows_its_options_by_what_they_are_about() -> None:
    said, _ = run("studies/lenet.py", "--help")
    places = [
        said.index(text)
        for text in ("\nNetwork and data:", "--weights FILE", "\nFinalists:", "--final-seeds", "\nMachines:")
    ]
    assert places == sorted(places)
    assert "\nOptions:" not in said
    assert "The recipe is a trial's but for shift 1." in " ".join(said.split())


def test_defaults_that_help_names_without_importing_torch_are_those_in_use() -> None:
    assert (Recipe.lr, Recipe.batch_size) == (options.TRAINING_LR, options.TRAINING_BATCH_SIZE)
    assert options.MEMORY["default"] == MEMORY_MB


def test_help_of_rank_has_an_example() -> None:
    said, _ = run("dirprune/__main__.py", "rank", "--help")
    assert "  dirprune rank --weights lenet.safetensors --method shapley" in said

"""The house rules: who may import whom, what `import dirprune` loads, and no weights file can run code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dirprune"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "addresses",
            "errors",
            "files",
            "interruption",
            "pareto",
            "halving",
            "deadline",
            "preemption",
            "remote",
            "page",
        }
    ),
    frozenset(
        {
            "identity",
            "networks",
            "data",
            "layers",
            "computed_weights",
            "groups",
            "refusals",
            "dependency",
            "tracing",
            "switches",
            "surgery",
            "cost",
            "device",
            "latency",
            "turns",
            "architecture",
            "allocation",
            "projection",
            "tasks",
            "uncounted",
        }
    ),
    frozenset(
        {
            "importance",
            "pruning",
            "reconstruction",
            "sensitivity",
            "training",
            "kept_training",
            "parallel",
            "training_state",
            "augmentation",
            "recipe",
            "recipes",
            "evaluation",
            "quiet",
            "optimizers",
            "order",
            "peer",
            "replay",
            "training_run",
        }
    ),
    frozenset({"trial", "study", "records"}),
    frozenset({"tuning"}),
    frozenset({"tracking", "explain", "server"}),
    frozenset({"cli", "__main__"}),
)
"""The modules of each layer, lowest first: a module may import its own layer and those below it."""

LIBRARIES: dict[str, int] = {
    "numpy": 0,
    "moocore": 0,
    "fsspec": 0,
    "torch": 1,
    "torchvision": 1,
    "PIL": 1,
    "torch_pruning": 1,
    "sklearn": 1,
    "scipy": 1,
    "safetensors": 1,
    "filelock": 2,
    "shap": 2,
    "onnxruntime": 3,
    "matplotlib": 3,
    "ray": 4,
    "optuna": 4,
    "yaml": 4,
    "mlflow": 5,
    "sqlalchemy": 4,
    "alembic": 5,
    "boto3": 5,
    "flask": 5,
    "fastapi": 5,
    "werkzeug": 5,
    "click": 6,
}
"""The lowest layer that may import each library; the standard library is free to all."""

ONLY_IN: dict[str, frozenset[str]] = {
    "shap": frozenset({"importance", "explain"}),
    "onnxruntime": frozenset({"records"}),
    "matplotlib": frozenset({"records"}),
    "ray": frozenset({"tuning"}),
    "optuna": frozenset({"tuning"}),
    "yaml": frozenset({"tuning"}),
    "mlflow": frozenset({"tracking", "server"}),
    "sqlalchemy": frozenset({"server", "tuning"}),
    "alembic": frozenset({"server"}),
    "boto3": frozenset({"server"}),
    "flask": frozenset({"server"}),
    "fastapi": frozenset({"server"}),
    "werkzeug": frozenset({"server"}),
    "click": frozenset({"cli"}),
}
"""Libraries that stay behind one or two modules, so that everything else works without them."""

STRANGERS = frozenset({"tuning", "tracking", "explain"})
"""Tuning does not know tracking and explain, nor they it: the command line introduces them."""


@dataclass(frozen=True)
class Import:
    """One import statement, wherever in the file: `target` is what is imported, with dots."""

    where: str
    module: str
    target: str


def read_imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Yield every import in `source`, lazy ones and `import_module("...")` too; `module` is its name."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names = [str(node.args[0].value)]
        for name in names:
            yield Import(f"{module}:{getattr(node, 'lineno', 0)}", module, name)


def layer_of(part: str) -> int | None:
    """Return the layer of a module directly below `dirprune`, or None if the table does not know it."""
    return next((number for number, parts in enumerate(LAYERS) if part in parts), None)


def broken_rule(found: Import) -> str | None:
    """Return what is wrong with one import, or None."""
    here = [*found.module.split("."), ""][1]
    # The package's own __init__ is the face of the core: it may show what lies in layers 0 to 3.
    layer = layer_of(here) if here else 3
    if layer is None:
        return f"{found.where}: {here!r} has no layer: give it one in tests/test_house.py"
    top, _, rest = found.target.partition(".")
    if top in sys.stdlib_module_names:
        return None
    if top != "dirprune":
        if top not in LIBRARIES:
            return f"{found.where}: imports {top!r}, which is no dependency of dirprune"
        if layer < LIBRARIES[top] or (top in ONLY_IN and here not in ONLY_IN[top]):
            return f"{found.where}: {here!r} may not import {top!r}"
        return None
    there = rest.partition(".")[0]
    target = layer_of(there)
    if target is None:  # a name that the package itself defines, such as __version__
        return None if there in ("", "__version__") else f"{found.where}: {there!r} has no layer"
    if target > layer:
        return f"{found.where}: {here!r} (layer {layer}) imports {there!r} (layer {target}) from above"
    if {here, there} <= STRANGERS and "tuning" in (here, there) and here != there:
        return f"{found.where}: {here!r} may not know {there!r}"
    return None


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def core_modules() -> list[str]:
    """Return the dotted names of all modules of layers 0 to 3."""
    names = [module_name(path) for path in all_files()]
    core = frozenset().union(*LAYERS[:4])
    return [name for name in names if "." in name and name.split(".")[1] in core]


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter in the repository's root; return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_lower_layers_never_import_upper_ones_and_libraries_stay_where_they_belong() -> None:
    found = [
        imported
        for path in all_files()
        for imported in read_imports(path.read_text(), module_name(path), path.name == "__init__.py")
    ]
    assert len(found) > 20
    assert [rule for rule in map(broken_rule, found) if rule] == []


def test_contributing_shows_the_same_layers() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.+) \| (.+) \|$", text, flags=re.MULTILINE)
    shown = [[frozenset(cell.replace("`", "").split(", ")) for cell in cells] for _, *cells in rows]
    assert [modules for modules, _ in shown] == list(LAYERS)
    names = {"torch_pruning": "torch-pruning", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml"}
    for layer, (_, libraries) in enumerate(shown):
        assert libraries == {names.get(name, name) for name, lowest in LIBRARIES.items() if lowest == layer}
    kept_apart = re.search(r"except that (.+?) each stay", text, flags=re.DOTALL)
    assert kept_apart is not None
    assert set(re.findall(r"[a-z0-9]+", kept_apart[1].lower())) - {"and"} == set(ONLY_IN)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dirprune.pareto", "import torch"),
        ("dirprune.pareto", "from dirprune.groups import find_groups"),
        ("dirprune.pareto", "from . import training"),
        ("dirprune.importance.taylor", "from ..study import spec"),
        ("dirprune.importance.taylor", "from ..records.tables import write_trials"),
        ("dirprune.training", "def late():\n    import ray"),
        ("dirprune.training", "import importlib\nimportlib.import_module('optuna.trial')"),
        ("dirprune.training", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mlflow"),
        ("dirprune.tuning.run", "import mlflow.tracking"),
        ("dirprune.tuning.run", "from dirprune.tracking import mlflow_tracker"),
        ("dirprune.tracking.mlflow_tracker", "from dirprune import tuning"),
        ("dirprune.tracking.mlflow_tracker", "import optuna"),
        ("dirprune.study.spec", "import matplotlib.pyplot"),
        ("dirprune.pruning", "import click"),
        ("dirprune.pruning", "import requests"),
        ("dirprune.pruning", "from dirprune.cli import main"),
        ("dirprune.helpers", "import os"),
        ("dirprune", "from dirprune.tuning import run_study"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert any(broken_rule(found) for found in read_imports(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("dirprune.pareto", "import numpy as np\nimport json"),
        ("dirprune.importance.taylor", "from .base import Scorer\nfrom ..errors import ImportanceError"),
        ("dirprune.tuning.run", "import ray\nfrom dirprune.study.spec import StudySpec"),
        ("dirprune.cli.study", "from dirprune.tracking import x\nfrom dirprune.tuning import y"),
        ("dirprune.study.spec", "from dirprune import __version__"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert [broken_rule(found) for found in read_imports(source, module) if broken_rule(found)] == []


def unsafe_loads(source: str) -> list[int]:
    """Return the lines that read a pickle which may run code."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner, name = getattr(node.func.value, "id", ""), node.func.attr
        is_safe = any(
            keyword.arg == "weights_only" and getattr(keyword.value, "value", None) is True
            for keyword in node.keywords
        )
        if (owner == "torch" and name == "load" and not is_safe) or (
            owner in ("pickle", "cloudpickle", "joblib", "dill") and name in ("load", "loads", "Unpickler")
        ):
            lines.append(node.lineno)
    return lines


def test_nothing_reads_a_pickle_that_can_run_code() -> None:
    found = {str(path.relative_to(ROOT)): unsafe_loads(path.read_text()) for path in all_files()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_an_unsafe_load_is_found() -> None:
    source = (
        "torch.load(p)\ntorch.load(p, weights_only=False)\npickle.loads(b)\ntorch.load(p, weights_only=True)"
    )
    assert unsafe_loads(source) == [1, 2, 3]


def test_import_dirprune_loads_neither_ray_nor_optuna_nor_mlflow() -> None:
    code = "import sys, dirprune; print([m for m in ('ray', 'optuna', 'mlflow') if m in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_import_mlflow_from_the_repository_root_gives_the_library() -> None:
    assert list((ROOT / "mlflow").rglob("*.py")) == []
    found = run_python("import mlflow; print(mlflow.__file__)").strip()
    assert found.endswith("__init__.py")
    assert not Path(found).is_relative_to(ROOT / "mlflow")


def test_core_imports_without_ray_optuna_mlflow_shap_and_moocore() -> None:
    code = f"""
import importlib, sys
for name in ("ray", "optuna", "mlflow", "shap", "moocore"):
    sys.modules[name] = None  # makes `import name` raise ImportError
for name in {core_modules()!r}:
    importlib.import_module(name)
print([name for name in ("timm", "torchvision", "torch._dynamo") if name in sys.modules])  # seconds each
"""
    assert run_python(code).strip() == "[]"


@pytest.mark.slow
def test_studies_and_their_workers_load_nothing_that_takes_seconds_before_it_is_used() -> None:
    code = """
import importlib, sys
heavy = ["mlflow", "scipy.stats", "shap", "sklearn", "timm", "torch._dynamo", "torchvision"]
importlib.import_module("dirprune.tuning.trainable")
print([name for name in (*heavy, "optuna", "sqlalchemy") if name in sys.modules])
for name in ("cli.study_run", "cli.rank", "tuning.run", "tuning.samplers.makers"):
    importlib.import_module(f"dirprune.{name}")
print([name for name in heavy if name in sys.modules])
importlib.import_module("dirprune.tuning.mends").leave_callbacks_uncounted_()
importlib.import_module("ray.tune.tune").air_usage.tag_callbacks([object()])
print([name for name in ("mlflow", "wandb") if name in sys.modules])
"""
    assert run_python(code).split() == ["[]", "[]", "[]"]

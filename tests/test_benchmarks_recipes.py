"""The benchmark of recipes at its smallest: it runs, measures nothing twice, and prints what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch):
    """The script's command, imported as the command line does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import recipes

    monkeypatch.setitem(recipes.DENSE, "plain", (1, recipes.DENSE["plain"][1]))
    threads = torch.get_num_threads()
    yield recipes.main
    torch.set_num_threads(threads)
    for name in ("recipes", "importance_common"):
        del sys.modules[name]


def test_trainings_are_measured_once_and_reported(main, mnist_root: Path, tmp_path: Path) -> None:
    arguments = ["run", "--data", str(mnist_root), "--output", str(tmp_path), "--train-images", "400"]
    arguments += ["--architectures", "6,7,34,16", "--epochs", "0.5", "--seeds", "0,1", "--recipes"]
    path = tmp_path / "recipes.jsonl"
    for names, n_rows in (("plain", 3), ("plain;shift 1, plain dense", 5), ("plain", 5)):
        result = CliRunner().invoke(main, [*arguments, names], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == n_rows
    assert [row["key"]["recipe"] for row in rows] == [
        "dense: plain",
        *["plain"] * 2,
        *["shift 1, plain dense"] * 2,
    ]
    assert rows[1]["values"]["test_error"] != rows[3]["values"]["test_error"]

    printed = CliRunner().invoke(main, ["report", "--output", str(tmp_path)], catch_exceptions=False).output
    lines = [line for line in printed.splitlines() if line.startswith("6,7,34,16 (158,112)")]
    assert len(lines) == 2
    assert all("±" in line for line in lines)

"""The benchmark of a study's accounts at its smallest: it runs, resumes what it grew, and prints a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
def test_accounts_are_measured_and_resumed_at_each_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    monkeypatch.delitem(sys.modules, "scale")
    arguments = ["--output", str(tmp_path), "--sizes", "12,30", "--groups", "3"]
    result = CliRunner().invoke(scale.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "scale.jsonl").read_text().splitlines()]
    assert [row["trials"] for row in rows] == [12, 30]
    assert all(row["resume_s"] > 0 and row["ask_s"] > 0 and row["journal_mb"] > 0 for row in rows)
    assert result.stdout.splitlines()[0].startswith("trials  ask, ms")


@pytest.mark.slow
def test_asks_are_measured_for_every_sampler_at_each_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale_asks

    monkeypatch.delitem(sys.modules, "scale_asks")
    arguments = ["--sizes", "12,30", "--groups", "3", "--asks", "2", "--samplers", "plain-tpe,tpe,front"]
    result = CliRunner().invoke(scale_asks.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [line.split()[:2] for line in result.stdout.splitlines()[1:]]
    assert rows == [[name, size] for size in ("12", "30") for name in ("plain-tpe", "tpe", "front")]

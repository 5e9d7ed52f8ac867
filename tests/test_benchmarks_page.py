"""The benchmark of the Pareto page at its smallest: every step is measured once, and a table comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import CHROMIUM
from tests.server.conftest import check_installed

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "page.py"


def measure(output: Path, repetitions: int) -> tuple[list[dict], list[str]]:
    """Run it as a user does; return the rows that it keeps and the lines that it prints."""
    command = [
        sys.executable,
        SCRIPT,
        "--output",
        output,
        "--trials",
        "20",
        "--repetitions",
        str(repetitions),
    ]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (output / "page.jsonl").read_text().splitlines()]
    return rows, done.stdout.splitlines()


@pytest.mark.slow
def test_steps_are_measured_once_and_reported(tmp_path: Path) -> None:
    check_installed()
    if CHROMIUM is None:
        pytest.skip("needs chromium, such as apt-get install chromium")
    (first,), _ = measure(tmp_path, 1)
    rows, printed = measure(tmp_path, 2)
    assert rows[0] == first
    assert [row["key"] for row in rows] == [{"trials": 20, "repetition": place} for place in range(2)]
    for row in rows:
        assert set(row["values"]) == {"front", "all", "limit", "sort", "click", "update"}
        assert 0 < row["values"]["front"] <= row["values"]["all"]
    assert printed[-2].split()[:2] == ["trials", "front,"]
    assert printed[-1].split()[0] == "20"

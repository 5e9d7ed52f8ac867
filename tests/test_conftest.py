"""A skip is a skip on a laptop and a failure under `.ci/run`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = """
import pytest

def test_that_skips():
    pytest.skip("no browser here")

@pytest.mark.skipif(True, reason="no server here")
def test_that_is_marked():
    raise AssertionError

@pytest.mark.xfail(reason="known", strict=True)
def test_expected_to_fail():
    raise AssertionError
"""
MODULE = "import pytest\n\npytest.skip('no part here', allow_module_level=True)\n"


def run_pytest(folder: Path, flag: str) -> tuple[int, str]:
    (folder / "test_inside.py").write_text(TESTS)
    (folder / "test_module.py").write_text(MODULE)
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", "--rootdir", str(folder), str(folder)]
    environment = {**os.environ, "DIRPRUNE_REQUIRE_ALL": flag, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return result.returncode, result.stdout


def test_skips_are_skips_without_the_flag(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, "")
    assert status == 0, output
    assert "3 skipped, 1 xfailed" in output


def test_any_skip_fails_with_its_reason_under_the_flag(tmp_path: Path) -> None:
    status, output = run_pytest(tmp_path, "1")
    assert status == 1
    for reason in ("no browser here", "no server here", "no part here"):
        assert f"nothing may be skipped: Skipped: {reason}" in output
    assert "1 failed, 1 xfailed, 2 errors" in output

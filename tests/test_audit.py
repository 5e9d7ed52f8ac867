"""What is known against a package fails CI unless it is explained; a service that is away is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci"
FOUND = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
CONTROL = [{"name": "urllib3", "version": "1.26.4", "vulns": [{"id": "PYSEC-0", "fix_versions": ["1.26.5"]}]}]
CLEAN = [{"name": "numpy", "version": "2.3", "vulns": []}]
VULNERABLE = [*CLEAN, {"name": "torch", "version": "1.0", "vulns": [FOUND]}]
SKIPPED = [
    {"name": "urllib3", "skip_reason": "Dependency not found on PyPI and could not be audited: urllib3"}
]


def audit(
    folder: Path, control: object, answer: object, *more: str, explained: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the audit with a program that answers as pip-audit 2.10 does, or prints what is no JSON."""
    shutil.copy(CI / "audit.py", folder)
    (folder / "explained-advisories").write_text(explained)
    for name, packages in (("control", control), ("answer", answer)):
        text = packages if isinstance(packages, str) else json.dumps({"dependencies": packages, "fixes": []})
        (folder / f"{name}.json").write_text(text)
    program = folder / "pip-audit"
    program.write_text(
        f"#!/bin/sh\ncd {folder}\n"
        'case "$*" in *control.txt) cat control.json ;; *) cat answer.json ;; esac\n'
        'echo "No known vulnerabilities found" >&2\n'
    )
    program.chmod(0o755)
    command = [sys.executable, str(folder / "audit.py"), str(program), "requirements.txt", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("more", "status", "kind"), [((), 1, "error"), (("--warn",), 0, "WARNING")])
def test_a_finding_fails_or_is_warned_of_until_it_is_explained(
    tmp_path: Path, more: tuple[str, ...], status: int, kind: str
) -> None:
    done = audit(tmp_path, CONTROL, VULNERABLE, *more)
    assert done.returncode == status
    assert done.stderr.startswith(f"{kind}: torch 1.0: PYSEC-1, CVE-1; fixed in: 2.0; ")
    done = audit(
        tmp_path, CONTROL, VULNERABLE, *more, explained="# why\nCVE-1 we never unpickle\nCVE-9 gone\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "explained: torch 1.0: PYSEC-1, CVE-1: we never unpickle" in done.stdout
    assert "note: CVE-9" in done.stdout
    assert audit(tmp_path, CONTROL, CLEAN, *more).returncode == 0


@pytest.mark.parametrize("control", [SKIPPED, CLEAN, "no JSON"])
def test_a_service_that_is_away_is_told_from_packages_without_findings(
    tmp_path: Path, control: object
) -> None:
    for more, status in (((), 3), (("--warn",), 0)):
        done = audit(tmp_path, control, VULNERABLE, *more)
        assert done.returncode == status
        assert done.stderr.startswith("WARNING: PyPI's list of vulnerabilities was not reached (")
        assert "findings" not in done.stdout


def test_an_explanation_needs_its_reason_and_what_was_not_asked_about_is_named(tmp_path: Path) -> None:
    for more in ((), ("--warn",)):
        done = audit(tmp_path, CONTROL, CLEAN, *more, explained="CVE-1\n")
        assert done.returncode == 2
        assert done.stderr.startswith("error: expected a reason after CVE-1 in ")
    done = audit(tmp_path, CONTROL, [*CLEAN, *SKIPPED])
    assert "note: Dependency not found on PyPI" in done.stdout
    assert "1 of 2 packages asked about, 0 findings" in done.stdout


def test_the_repositorys_own_explanations_can_be_read(tmp_path: Path) -> None:
    done = audit(tmp_path, CONTROL, CLEAN, explained=(CI / "explained-advisories").read_text())
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("explained", "steps"),
    [("CVE-1\n", ["install", "check", "audit"]), ("", ["install", "check", "audit", "test", "test-slow"])],
)
def test_ci_goes_on_after_a_finding_and_ends_at_an_explanation_without_its_reason(
    tmp_path: Path, explained: str, steps: list[str]
) -> None:
    """`.ci/run` with a make that only audits, by the arguments it is given; nothing is installed."""
    audit(tmp_path, CONTROL, VULNERABLE)
    (tmp_path / "explained-advisories").write_text(explained)
    for name in ("apt-get", "chromium", "sshd", "rsync", "ip"):
        (tmp_path / name).write_text("#!/bin/sh\n")
    command = f"{sys.executable} {tmp_path}/audit.py {tmp_path}/pip-audit requirements.txt"
    (tmp_path / "make").write_text(
        f"#!/bin/sh\necho $2 >> {tmp_path}/steps\n"
        f'[ "$2" != audit ] || {command} ${{3#ARGS=}} || exit 2 # as make says of any failure\n'
    )
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", str(CI / "run")], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (tmp_path / "steps").read_text().split() == steps
    assert (done.returncode == 0) == (steps[-1] == "test-slow"), done.stderr

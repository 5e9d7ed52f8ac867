"""Say what is known against installed packages and not explained in `explained-advisories` beside this file.

    python .ci/audit.py PIP_AUDIT REQUIREMENTS [--warn]

PIP_AUDIT is the program, REQUIREMENTS a file of name==version. Where its service is not reached, pip-audit
says that it found nothing, as if all were well; so a package with a known vulnerability is asked about first.

Exit status: 0 all is explained, 1 something is not, 2 an explanation lacks its reason, 3 the service was not
reached, which says nothing about the packages. With --warn it is 0 instead of 1 and 3: of these nobody who
changes something else is to blame, but of 2.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

CONTROL = "urllib3==1.26.4"  # CVE-2021-33503 and others are known of it
EXPLAINED = Path(__file__).with_name("explained-advisories")
PATIENCE_S = 300.0


class UnreachedError(Exception):
    """The list of vulnerabilities gave no answer; the text says why."""


def ask(program: str, requirements: Path) -> list[dict]:
    """Return what pip-audit says of each package: its vulnerabilities, or why it skipped it.

    Raises:
        UnreachedError: If it came to no end.
    """
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", "--aliases=on"]
    try:
        done = subprocess.run(
            [program, *options, "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return json.loads(done.stdout)["dependencies"]
    except FileNotFoundError as error:
        raise UnreachedError(f"there is no {program}") from error
    except subprocess.TimeoutExpired as error:
        raise UnreachedError(f"no end after {PATIENCE_S:.0f} s") from error
    except ValueError as error:  # no JSON, but what went wrong
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UnreachedError(said[-1]) from error


def check_answers(program: str) -> None:
    """Raise `UnreachedError` unless the service knows what is known of `CONTROL`."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "control.txt"
        requirements.write_text(f"{CONTROL}\n", encoding="utf-8")
        answer = ask(program, requirements)
    if not any(package.get("vulns") for package in answer):
        raise UnreachedError(f"it knows nothing of {CONTROL}")


def read_explained() -> dict[str, str]:
    """Return the reason for each advisory that is explained.

    Raises:
        ValueError: If one has no reason.
    """
    explained = {}
    for line in EXPLAINED.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            identifier, _, reason = line.strip().partition(" ")
            if not reason:
                raise ValueError(f"expected a reason after {identifier} in {EXPLAINED}")
            explained[identifier] = reason.strip()
    return explained


def report(packages: list[dict], explained: dict[str, str], kind: str) -> int:
    """Print what was found, each finding that is not explained as of a kind; return how many those are."""
    n_unexplained, used = 0, set()
    for package in packages:
        if "skip_reason" in package:
            print(f"note: {package['skip_reason']}")
        for found in package.get("vulns", []):
            names = [found["id"], *found.get("aliases", [])]
            known = next((name for name in names if name in explained), None)
            what = f"{package['name']} {package['version']}: {', '.join(names)}"
            if known is not None:
                used.add(known)
                print(f"explained: {what}: {explained[known]}")
                continue
            n_unexplained += 1
            fixed = ", ".join(found["fix_versions"]) or "none yet"
            print(
                f"{kind}: {what}; fixed in: {fixed}; update it, or explain it in {EXPLAINED}", file=sys.stderr
            )
    for name in sorted(explained.keys() - used):
        print(f"note: {name} in {EXPLAINED} is found no more")
    return n_unexplained


def main(arguments: list[str]) -> int:
    """Audit; return the exit status."""
    program, requirements, *more = arguments
    try:
        explained = read_explained()
        check_answers(program)
        packages = ask(program, Path(requirements))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except UnreachedError as error:
        said = f"PyPI's list of vulnerabilities was not reached ({error})"
        print(f"WARNING: {said}; this says nothing about the packages", file=sys.stderr)
        return 0 if "--warn" in more else 3
    n_unexplained = report(packages, explained, "WARNING" if "--warn" in more else "error")
    n_asked = sum("skip_reason" not in package for package in packages)
    print(f"audit: {n_asked} of {len(packages)} packages asked about, {n_unexplained} findings not explained")
    return 1 if n_unexplained and "--warn" not in more else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

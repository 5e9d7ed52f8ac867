"""Say which marked places of a cluster file, and of the environment.sh it uses, have not been edited yet.

Where machines are listed, their number must be that of the workers: Ray leaves the others out without a word.

    python cluster/check.py cluster/onprem.yaml

Exit status 0 if nothing is left to do, 2 with one line for each thing that is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MARK = "EDIT-ME"
ENVIRONMENT = "environment.sh"


def find_marks(path: Path) -> list[str]:
    """Return the places that are still marked, as file:line: content."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        f"{path}:{number}: {line.partition('#')[0].strip()}"
        for number, line in enumerate(lines, 1)
        if MARK in line.partition("#")[0]
    ]


def list_machines(text: str) -> list[str] | None:
    """Return the addresses of `worker_ips`, be they in brackets or on lines of their own; None without them.

    A node on which nothing is installed yet has no YAML parser.
    """
    text = re.sub(r"(^|\s)#.*", "", text)
    found = re.search(r"\bworker_ips:\s*(?:\[([^\]]*)\]|((?:\s*- .*)*))", text)
    if found is None:
        return None
    in_brackets, on_lines = found.groups()
    entries = re.findall(r"- (.*)", on_lines) if in_brackets is None else in_brackets.split(",")
    return [entry.strip() for entry in entries if entry.strip()]


def find_miscounts(path: Path) -> list[str]:
    """Return the numbers of workers that are not that of the listed machines."""
    text = path.read_text(encoding="utf-8")
    machines = list_machines(text)
    if machines is None or MARK in machines:
        return []
    n_machines = len(machines)
    found = re.findall(r"^(m(?:ax|in)_workers): *(\d+)", text, flags=re.MULTILINE)
    return [
        f"expected {name}: {n_machines}, as many as there are worker_ips, got {number} in {path}"
        for name, number in found
        if int(number) != n_machines
    ]


def main(arguments: list[str]) -> int:
    """Check one cluster file."""
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print("error: expected one cluster file, such as cluster/onprem.yaml", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    environment = path.parent / ENVIRONMENT
    marks = find_marks(path)
    if path.name != ENVIRONMENT and ENVIRONMENT in path.read_text(encoding="utf-8"):
        if not environment.is_file():
            message = f"expected {ENVIRONMENT} beside {path}, found none; keep both in one folder"
            print(f"error: {message}", file=sys.stderr)
            return 2
        marks += find_marks(environment)
    errors = [f"expected this place to be edited: {mark}" for mark in marks] + find_miscounts(path)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

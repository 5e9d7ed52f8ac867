"""Say which marked places of a cluster file, and of the environment.sh it uses, have not been edited yet.

    python cluster/check.py cluster/onprem.yaml

Exit status 0 if there are none left, 2 with one line for each that is.
"""

from __future__ import annotations

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


def main(arguments: list[str]) -> int:
    """Check one cluster file."""
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print("error: expected one cluster file, such as cluster/onprem.yaml", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    marks = find_marks(path)
    if ENVIRONMENT in path.read_text(encoding="utf-8"):
        marks += find_marks(path.parent / ENVIRONMENT)
    for mark in marks:
        print(f"error: expected this place to be edited: {mark}", file=sys.stderr)
    return 2 if marks else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

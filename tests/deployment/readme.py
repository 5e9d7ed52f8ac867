"""The commands that the tracking server's README shows, to be run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "mlflow" / "README.md").read_text(encoding="utf-8")


def read_block(part: str) -> str:
    """Return the one block of commands that has a part."""
    blocks = re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if part in block]
    return str(block)


def read_cell(start: str) -> str:
    """Return the one command of a table that starts like this."""
    (command,) = re.findall(rf"\| `({re.escape(start)}[^`]*)` \|", TEXT)
    return str(command)


def read_requests(part: str) -> list[tuple[str, str, str | None]]:
    """Return method, path and body of each `curl` in a block."""
    requests = []
    for line in read_block(part).replace("\\\n", "").splitlines():
        words = shlex.split(line)
        assert words[:3] == ["curl", "-u", "admin"]
        (address,) = [word for word in words if word.startswith("http://HOST:5000/")]
        body = words[words.index("-d") + 1] if "-d" in words else None
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        requests.append((method, address.removeprefix("http://HOST:5000"), body))
    return requests


def run_commands(commands: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run commands with bash in a folder; none of them may fail."""
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""A process that ends without a word, as Ray ends it, leaves a line behind; one that ends by itself none."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from dirprune.tuning.last_words import last_words
with last_words("error: gone"):
    if sys.argv[1] == "killed":
        os._exit(1)
    if sys.argv[1] == "raises":
        raise SystemExit(2)
"""


@pytest.mark.parametrize(
    ("how", "status", "said"), [("killed", 1, "\nerror: gone\n"), ("raises", 2, ""), ("ends", 0, "")]
)
def test_what_a_killed_process_could_not_say_is_said(how: str, status: int, said: str) -> None:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (status, said)

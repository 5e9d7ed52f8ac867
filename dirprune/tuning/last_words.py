"""What is said when Ray ends the process that drives a study, whose compiled part exits without a word."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SAY = "import sys; sys.stdin.read() or sys.stderr.write('\\n' + sys.argv[1] + '\\n')"


@contextmanager
def last_words(text: str) -> Iterator[None]:
    """Let a process beside this one print a text if this one ends before the context does.

    It waits for the end of a pipe whose other end this process holds, in a session of its own, where Ctrl-C
    does not reach it.
    """
    with subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _SAY, text],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as beside:
        try:
            yield
        finally:
            beside.communicate("ended by itself")

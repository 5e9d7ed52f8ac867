"""The runner of commands: whose fault it is decides between one line and a traceback."""

from __future__ import annotations

import errno
import subprocess
import sys

import click
import pytest
import torch

from dirprune.cli.errors import run_command
from dirprune.errors import DataError


def raising(error: BaseException) -> click.Command:
    """Return a command that raises."""

    @click.command
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (
            DataError("expected images,\n  got none; try --data"),
            2,
            "error: expected images, got none; try --data",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (click.UsageError("what.\nelse."), 2, "error: what. else"),
        (OSError(errno.ENOSPC, "No space left", "a.csv"), 2, "error: expected to read and write freely"),
        (MemoryError(), 2, "error: expected room in memory for what is computed, got 'MemoryError'; try "),
        (
            torch.OutOfMemoryError("CUDA out\nof memory."),
            2,
            "error: expected room in memory for what is comp",
        ),
        (RuntimeError("you can't allocate memory"), 2, "error: expected room in memory for what is computed"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 2, "error: expected room in memory for what"),
    ],
)
def test_what_a_user_can_cause_is_one_line(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(raising(error), []) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(line)
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), RuntimeError("a bug"), OSError(errno.EBADF, "a bug"), AssertionError()]
)
def test_our_own_mistakes_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run_command(raising(error), [])


def test_a_command_leaves_with_the_status_that_it_asks_for() -> None:
    assert run_command(raising(click.exceptions.Exit(7)), []) == 7


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = """
import click, sys
from dirprune.cli.errors import run_command

@click.command
def command():
    for _ in range(100_000):
        click.echo("a line")

sys.exit(run_command(command, []))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141

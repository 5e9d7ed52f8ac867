"""The command line: `dirprune` for what is not a study, and the options that all study scripts share."""

from __future__ import annotations

from dirprune.interruption import leaving_at_ctrl_c

__all__ = ["main"]


def main() -> None:
    """Run `dirprune` and leave with its exit status: 0, 2 for a user's mistake, 130 after Ctrl-C."""
    with leaving_at_ctrl_c():
        from dirprune.cli.app import program
        from dirprune.cli.errors import run_command

    raise SystemExit(run_command(program, name="dirprune"))

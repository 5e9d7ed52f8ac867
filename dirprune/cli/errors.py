"""The one way in which a command is run: a user's mistake ends in one clear line and exit status 2."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from dirprune.errors import DirpruneError, one_line, suggest
from dirprune.interruption import INTERRUPTED

MISTAKE = 2
CLOSED_PIPE = 141

# What the system says of a path, a full disk or a missing right: nothing that a traceback would help with.
_OF_THE_SYSTEM = (
    errno.EACCES,
    errno.EDQUOT,
    errno.EISDIR,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


def run_command(
    command: click.Command, arguments: Sequence[str] | None = None, name: str | None = None
) -> int:
    """Run a command and return its exit status; errors of a user are printed as one line on stderr.

    Args:
        command: What to run.
        arguments: Its arguments; those of this process when None.
        name: What the help calls the command; the script's name when None.
    Returns:
        0, or the status that the command asked for; 2 for a user's mistake; 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with command.make_context(name or os.path.relpath(sys.argv[0]), given) as context:
            command.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as request:
        return request.exit_code
    except (click.Abort, KeyboardInterrupt):
        _print_line("interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        return _report(describe(error))
    except DirpruneError as error:
        return _report(str(error))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return _report(_describe_shortage(error))
        if error.errno not in _OF_THE_SYSTEM:
            raise
        where = f" at {error.filename}" if error.filename else ""
        return _report(
            f"expected to read and write freely, got '{error.strerror}'{where}; try another folder"
        )
    except (RuntimeError, MemoryError) as error:
        from dirprune.device import is_out_of_memory  # only here: help costs no import of torch

        if not is_out_of_memory(error):
            raise
        return _report(_describe_shortage(error))
    return 0


def _describe_shortage(error: BaseException) -> str:
    return (
        f"expected room in memory for what is computed, got '{one_line(error)}'; try smaller or fewer inputs "
        "at once, where the command has an option for it, or a device that has more"
    )


def describe(error: click.ClickException) -> str:
    """Return what a user did wrong on the command line: expected, got, try."""
    context = getattr(error, "ctx", None)
    advice = f"; try '{context.command_path} --help'" if context else ""
    if isinstance(error, click.NoSuchOption) and context:
        options = [name for parameter in context.command.get_params(context) for name in parameter.opts]
        known = [name for name in options if name.startswith("--")]
        return f"unknown option {error.option_name!r}{suggest(error.option_name, known)}"
    if isinstance(error, click.MissingParameter) and error.param and context:
        return f"expected {error.param.get_error_hint(context)}, got nothing{advice}"
    if isinstance(error, click.BadParameter) and error.param and context:
        said = f"{error.param.get_error_hint(context)}: {error.message.rstrip('.')}"
        return said if ";" in said else said + advice
    message = error.format_message().rstrip(".")
    return message if ";" in message else message + advice


def _report(message: str) -> int:
    _print_line(f"error: {message}")
    return MISTAKE


def _print_line(message: str) -> None:
    """Print on stderr, on one line whatever the message holds."""
    click.echo(" ".join(message.split()), err=True)

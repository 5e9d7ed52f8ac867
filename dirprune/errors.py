"""Errors that a user can cause: each message is one line: what was expected, what came, what to try."""

from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from dirprune.addresses import hide_secrets

LEAST_ALIKE = 0.5
"""How alike a name must be to one that is wanted to be taken for a slip."""
_AROUND = re.compile(
    r"\((?:sqlite3|psycopg2?|pymysql|MySQLdb|mysql|pyodbc|pymssql)\.[\w.]+\) "
    r"|\s*\[SQL: .*?(?=\s\(Background on )"
    r"|\s*\(Background on this error at: [^)]*\)",
    re.DOTALL,
)
"""What SQLAlchemy writes around what a database says: the driver's class, the statement, a link."""


class DirpruneError(Exception):
    """Base of every error that a caller can cause; its text is one clear line."""


class ConfigurationError(DirpruneError):
    """A setting, option or argument that cannot work."""


class DataError(DirpruneError):
    """A data set that is missing, empty or not of the expected form."""


class WeightsError(DirpruneError):
    """A weights file that cannot be read safely or belongs to another network."""


class ClassesError(WeightsError):
    """Weights that fit the network but for the number of its outputs."""


class ArchitectureError(DirpruneError):
    """Kept channels that do not fit the network's channel groups."""


class ImportanceError(DirpruneError):
    """An importance method or option that is unknown, or scores that break the contract."""


class TrainingDiverged(DirpruneError):  # noqa: N818  (named for what happened)
    """A loss or metric that is no longer finite."""


class StudyError(DirpruneError):
    """A study that exists already, differs from the one asked for, or is held by another driver."""


class NotGivenError(StudyError):
    """A stored network that a user's own function made, and that function was not given."""


class StorageError(DirpruneError):
    """A shared storage that cannot be read or written."""


class TrackingError(DirpruneError):
    """A tracking server that cannot be reached or refuses the study."""


def one_line(error: object, *, has_type: bool = False, address: str = "") -> str:
    """Return what an exception says in one line of 300 characters at most, without user, password and keys.

    Args:
        error: The exception, or what it gave as its reason.
        has_type: Whether the type's name comes before the text; where there is no text it stands alone.
        address: Of the database, server or store that was asked; its secrets are hidden in what a library
            said. Our own errors have none, and may have a word in common with a password.
    """
    kind = type(error).__name__
    said = str(error) if isinstance(error, DirpruneError) else hide_secrets(str(error), address)
    text = " ".join(_AROUND.sub("", said).split())
    return (f"{kind}: {text}" if has_type and text else text or kind)[:300]


def find_place(error: BaseException, called: Callable[..., Any]) -> str:
    """Return " at FILE:LINE", where in a user's file the function or class that was called failed, or ""."""
    frames = traceback.extract_tb(error.__traceback__)
    made_by: Any = called
    code = getattr(inspect.unwrap(called), "__code__", None) or getattr(made_by.__init__, "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def printable(text: str) -> str:
    """Return a text as UTF-8 can say it: bytes of a file's name that it cannot become \\xff and the like."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of an "unknown name" message: the nearest known name, if any is near, and all of them.

    Args:
        name: What the caller wrote.
        known: The names that would have been accepted.
    """
    choices = sorted(known)
    nearest = max(((*_compare(name, choice), choice) for choice in choices), default=(0.0, 0, ""))
    hint = f"; did you mean {nearest[-1]!r}?" if nearest[0] >= LEAST_ALIKE else ";"
    return f"{hint} known: {', '.join(choices) or 'none'}"


def _compare(name: str, choice: str) -> tuple[float, int]:
    """Return how alike two names are, and how far they are the same: resnet21 is resnet20, not resnet32."""
    matcher = difflib.SequenceMatcher(None, choice, name, autojunk=False)
    first = matcher.get_matching_blocks()[0]
    return matcher.ratio(), first.size if first.a == first.b == 0 else 0

"""A full disk, or a storage that is lost, ends a study in order: no trial failed, and all can go on later."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dirprune.errors import StorageError, one_line
from dirprune.files import write_atomically
from dirprune.tuning.finalists import FinalistAccounts
from dirprune.tuning.ledger import Ledger

PROBE_BYTES = 1 << 18
FULL = (errno.ENOSPC, errno.EDQUOT)
WORDS = tuple(os.strerror(number) for number in FULL)
LOST = StorageError.__name__
SAYS_FULL = re.compile(r"quota|storage ?full|insufficient ?storage|no space|disk (is )?full", re.IGNORECASE)
"""What object stores, databases and file systems say when they take no more."""

Answer = TypeVar("Answer")


class FullDiskWatch:
    """Accounts that hear of nothing more once nothing can be written, so that trials stay unfinished.

    It stands between Ray and the accounts. A trial that failed because nothing could be written, and any that
    ends or reports after it, is not told: like those of a killed driver it goes on with `--resume`.

    Args:
        accounts: The trials or the finalists.
        folder: The study's folder.

    Attributes:
        reason: What could not be written, in words; empty while there is room.
    """

    def __init__(self, accounts: Ledger | FinalistAccounts, folder: Path) -> None:
        self.accounts, self.folder = accounts, folder
        self.reason = ""

    @property
    def may_have_more(self) -> bool:
        """Whether what runs may let another one start."""
        return not self.reason and self.accounts.may_have_more

    def next_configuration(self) -> Any:
        """Hand out the next one; None once the disk is full."""
        return self._ask(self.accounts.next_configuration, None)

    def reported(self, number: int, images: int, metrics: Mapping[str, float]) -> bool:
        """Take a report; on a full disk everything halts at its next one."""
        return self._ask(lambda: self.accounts.reported(number, images, metrics), False)

    def completed(self, number: int, metrics: Mapping[str, float]) -> None:
        """Take an end, if it can be written down."""
        self._ask(lambda: self.accounts.completed(number, metrics), None)

    def halted(self, number: int, images: int) -> None:
        """Take a halt, if it can be written down."""
        self._ask(lambda: self.accounts.halted(number, images), None)

    def failed(self, number: int, reason: str = "") -> None:
        """Take a failure, unless it was the disk's."""
        if not self.reason and (
            any(words in reason for words in (*WORDS, LOST)) or not has_room(self.folder)
        ):
            self.reason = reason or WORDS[0]
        self._ask(lambda: self.accounts.failed(number, reason), None)

    def is_preempted(self, number: int) -> bool:
        """Whether the worker of the newest attempt was told to end."""
        return self.accounts.is_preempted(number)

    def _ask(self, call: Callable[[], Answer], otherwise: Answer) -> Answer:
        if self.reason:
            return otherwise
        try:
            return call()
        except StorageError as error:
            self.reason = one_line(error, has_type=True)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.reason = one_line(error)
        return otherwise


def has_room(folder: Path) -> bool:
    """Return whether something small can be written to a folder; nothing is left there."""
    probe = folder / "room"
    try:
        with write_atomically(probe) as temporary:
            temporary.write_bytes(bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        if error.errno in FULL:
            return False
        raise
    return True


@contextmanager
def say_how_to_go_on() -> Iterator[None]:
    """Let the error of a storage that is lost where no trials run say what to do.

    Raises:
        StorageError: With the advice.
    """
    try:
        yield
    except StorageError as error:
        raise StorageError(_describe_lost(str(error))) from error


def describe_full_disk(folder: Path, reason: str) -> str:
    """Return why a study ended, and what to do."""
    if LOST in reason:
        return _describe_lost(reason.partition(f"{LOST}: ")[2] or reason)
    return f"no room is left in {folder} ({reason}); make room, then the same command with --resume goes on"


def _describe_lost(said: str) -> str:
    advice = "make room there, then" if SAYS_FULL.search(said) else "when it answers again,"
    return f"{said}; {advice} the same command with --resume goes on"

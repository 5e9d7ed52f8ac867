"""A study's journal file as its one driver writes it: what belongs together reaches the disk at once."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from dirprune.errors import StudyError


class StudyJournal(BaseJournalBackend):
    """Optuna's journal: one JSON object per line, in the format of its own `JournalFileBackend`.

    Optuna appends and synchronises every parameter and attribute by itself, which for a trial of 60 groups
    is 70 times. Within `batch` they are held back and written by one append, so that a driver which is killed
    leaves all of a batch or, after `heal_journal`, a beginning of it, in order.

    Contract: one process writes, the holder of the study's lock; any number of processes read. Not
    thread-safe.

    Args:
        path: The file; it is created when there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[bytes] | None = None
        self._n_held_read = 0
        self._n_read = 0  # lines of the file that were read
        self._offset = 0  # bytes that they take
        if not path.exists():
            path.touch()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Hold back what is appended and write it at the end, also when something raised; may be nested.

        Raises:
            StudyError: If another process has written in the meantime.
            OSError: If the disk is full.
        """
        if self._held is not None:
            yield
            return
        self._held, self._n_held_read = [], 0
        try:
            yield
        finally:
            lines, self._held = self._held, None
            if lines:
                self._write(lines, after=self._offset)
                self._n_read += self._n_held_read
                self._offset += sum(map(len, lines[: self._n_held_read]))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, now or at the end of the batch."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        if self._held is None:
            self._write(lines)
        else:
            self._held += lines

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the operations from a number on; a last line that is not whole is not there yet.

        Raises:
            StudyError: If a line is no operation although others follow.
        """
        if self._held is not None and self._n_held_read:  # the file is read to its end
            yield from self._read_held()
            return
        if log_number_from < self._n_read:
            self._n_read, self._offset = 0, 0
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._n_read += 1
                self._offset += len(line)
                if self._n_read > log_number_from:
                    yield self._decode(line)
        yield from self._read_held()

    def _read_held(self) -> Iterator[dict[str, Any]]:
        for line in (self._held or [])[self._n_held_read :]:
            self._n_held_read += 1
            yield json.loads(line)

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            log = json.loads(line)
        except ValueError:  # of which JSON and Unicode errors are kinds
            log = None
        if not isinstance(log, dict) or "op_code" not in log:
            raise StudyError(
                f"expected one operation of Optuna's journal in each line of {self.path}, got something "
                f"else in line {self._n_read}; is it another file, or damaged?"
            )
        return log

    def _write(self, lines: Sequence[bytes], after: int | None = None) -> None:
        """Append whole lines and synchronise; where that fails, leave the file as it was.

        Args:
            lines: What to append.
            after: Size in bytes that the file must have; None: any.
        """
        content = b"".join(lines)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            if after not in (None, size):
                raise StudyError(
                    f"expected to be alone in writing {self.path}, got {size - (after or 0)} bytes of "
                    "another process; end it, and go on with --resume"
                )
            if (n_written := os.write(descriptor, content)) != len(content):
                os.ftruncate(descriptor, size)
                raise OSError(
                    errno.ENOSPC,
                    f"wrote {n_written} of {len(content)} bytes; is the disk full?",
                    str(self.path),
                )
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

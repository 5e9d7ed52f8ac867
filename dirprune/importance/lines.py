"""A file of what was computed so far, so that an interruption costs only what was under way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dirprune.errors import ImportanceError

SCHEMA = 1


class CheckedLines:
    """Records in a file, appended one by one.

    The file is JSON lines, each with a check sum: one that a kill has cut short is skipped and never half
    used. Records of several processes do not mix; which of them may write at a time is for the callers.

    Args:
        path: The file. Its name must tell everything that the records depend on.

    Raises:
        ImportanceError: If its folder can neither be found nor made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_until = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self.cannot_write(error) from error

    def read(self) -> list[dict[str, Any]]:
        """Return the whole records that were added since the last call, in their order."""
        if not self.path.exists():
            return []
        records = []
        with self.path.open("rb") as file:
            file.seek(self._read_until)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_until += len(line)
                if (record := _check(line)) is not None:
                    records.append(record)
        return records

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record of plain data.

        Raises:
            ImportanceError: If the file cannot be written.
        """
        line = _with_checksum({"schema": SCHEMA, **record})
        try:
            with self.path.open("ab") as file:
                if file.tell() > 0 and not self._ends_with_newline():
                    file.write(b"\n")
                file.write(line)
        except OSError as error:
            raise self.cannot_write(error) from error

    def cannot_write(self, error: OSError) -> ImportanceError:
        """Return the one line that says so."""
        return ImportanceError(
            f"what is computed must be kept in a folder that can be written, got {self.path.parent} "
            f"({error.strerror}); choose another folder"
        )

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"


def _check(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None where it is not what was written, or by another version."""
    try:
        record = json.loads(line)
        del record["sha256"]
        return record if record["schema"] == SCHEMA and line == _with_checksum(record) else None
    except (ValueError, KeyError, TypeError):
        return None


def _with_checksum(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record)
    checksum = hashlib.sha256(text.encode()).hexdigest()[:16]
    return json.dumps({**record, "sha256": checksum}).encode() + b"\n"

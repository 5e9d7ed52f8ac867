"""Keeps coalition values on disk while they are computed, so that nothing is ever computed twice."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dirprune.errors import ImportanceError
from dirprune.importance.coalitions.values import Coalitions, CoalitionValues

SCHEMA = 1
SECONDS_PER_RECORD = 2.0
FIRST_BATCH = 8


class StoredValues(CoalitionValues):
    """Looks values up in a file, computes the missing ones and appends them as soon as they are there.

    The file is JSON lines, each with the coalitions (packed bits) and values of one batch and a check sum: a
    line that a kill has cut short is recomputed and never half used. One process at a time computes the
    values of a file, others wait for it and find what it has computed.

    Args:
        values: Computes what is missing.
        path: The file; its folder must exist. Its name must tell everything that the values depend on.
        progress: Told how many of the coalitions asked for are known, at first and after each batch.
    """

    def __init__(
        self, values: CoalitionValues, path: Path, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.values = values
        self.group, self.n_channels = values.group, values.n_channels
        self.path = path
        self.progress = progress or (lambda n_done, n_total: None)
        self.known: dict[bytes, float] = {}
        self.n_computed = 0
        self._read_until = 0

    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        keys = [row.tobytes() for row in np.packbits(coalitions, axis=1)]
        self._read()
        if any(key not in self.known for key in keys):
            with self._locked():
                self._read()
                self._compute_missing(coalitions, keys)
        return np.array([self.known[key] for key in keys])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            lock.acquire()
        except OSError as error:
            raise self._cannot_write(error) from error
        try:
            yield
        finally:
            lock.release()

    def _cannot_write(self, error: OSError) -> ImportanceError:
        return ImportanceError(
            f"coalition values must be kept in a folder that can be written, got {self.path.parent} "
            f"({error.strerror}); choose another folder"
        )

    def _compute_missing(self, coalitions: Coalitions, keys: list[bytes]) -> None:
        first_row: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self.known:
                first_row.setdefault(key, row)
        missing = list(first_row.items())
        n_all = len(set(keys))
        start, size = 0, FIRST_BATCH
        self.progress(n_all - len(missing), n_all)
        while start < len(missing):
            part = missing[start : start + size]
            began = time.perf_counter()
            values = self.values.evaluate(coalitions[[row for _, row in part]])
            self._append([key for key, _ in part], values)
            start += len(part)
            self.n_computed += len(part)
            self.progress(n_all - len(missing) + start, n_all)
            # Batches as large as can be lost without regret: an interruption costs about two seconds.
            seconds = max(time.perf_counter() - began, 1e-6)
            size = max(1, min(4 * size, round(size * SECONDS_PER_RECORD / seconds)))

    def _append(self, keys: list[bytes], values: NDArray[np.float64]) -> None:
        record = {
            "schema": SCHEMA,
            "coalitions": base64.b64encode(b"".join(keys)).decode(),
            "values": values.tolist(),
        }
        line = _with_checksum(record)
        try:
            with self.path.open("ab") as file:
                if file.tell() > 0 and not self._ends_with_newline():
                    file.write(b"\n")
                file.write(line)
        except OSError as error:
            raise self._cannot_write(error) from error
        self.known.update(zip(keys, values.tolist(), strict=True))

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"

    def _read(self) -> None:
        """Read whole lines that were added since the last time; broken ones are skipped."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read_until)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_until += len(line)
                self._learn(line)

    def _learn(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            if line != _with_checksum({key: record[key] for key in ("schema", "coalitions", "values")}):
                return
            packed, values = base64.b64decode(record["coalitions"]), record["values"]
        except (ValueError, KeyError, TypeError):
            return
        width = -(-self.n_channels // 8)
        if record["schema"] != SCHEMA or len(packed) != width * len(values):
            return
        for number, value in enumerate(values):
            self.known[packed[number * width : (number + 1) * width]] = value


def _with_checksum(record: dict[str, object]) -> bytes:
    text = json.dumps(record)
    checksum = hashlib.sha256(text.encode()).hexdigest()[:16]
    return json.dumps({**record, "sha256": checksum}).encode() + b"\n"

"""Keeps coalition values on disk while they are computed, so that nothing is ever computed twice."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from dirprune.importance.coalitions.values import Coalitions, CoalitionValues
from dirprune.importance.lines import CheckedLines

SECONDS_PER_RECORD = 2.0
FIRST_BATCH = 8
GROWTH = 16


class StoredValues(CoalitionValues):
    """Looks values up in a file, computes the missing ones and appends them as soon as they are there.

    Each record holds the coalitions (packed bits) and values of one batch; one that a kill has cut short is
    recomputed. One process at a time computes the values of a file, others wait for it and find what it has
    computed.

    Args:
        values: Computes what is missing.
        path: The file. Its name must tell everything that the values depend on. None keeps them in memory.
        progress: Told how many of the coalitions asked for are known, at first and after each batch.
    """

    def __init__(
        self, values: CoalitionValues, path: Path | None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.values = values
        self.group, self.n_channels = values.group, values.n_channels
        self.lines = None if path is None else CheckedLines(path)
        self.progress = progress or (lambda n_done, n_total: None)
        self.known: dict[bytes, float] = {}
        self.n_computed = 0
        self._batch_size = FIRST_BATCH

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
        if self.lines is None:
            yield
            return
        lock = FileLock(self.lines.path.with_suffix(".lock"))
        try:
            lock.acquire()
        except OSError as error:
            raise self.lines.cannot_write(error) from error
        try:
            yield
        finally:
            lock.release()

    def _compute_missing(self, coalitions: Coalitions, keys: list[bytes]) -> None:
        first_row: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self.known:
                first_row.setdefault(key, row)
        missing = list(first_row.items())
        n_all = len(set(keys))
        start = 0
        self.progress(n_all - len(missing), n_all)
        while start < len(missing):
            part = missing[start : start + self._batch_size]
            began = time.perf_counter()
            values = self.values.evaluate(coalitions[[row for _, row in part]])
            self._append([key for key, _ in part], values)
            start += len(part)
            self.n_computed += len(part)
            self.progress(n_all - len(missing) + start, n_all)
            self._adapt_batches(len(part), time.perf_counter() - began)

    def _adapt_batches(self, n_coalitions: int, seconds: float) -> None:
        """Make batches as large as can be lost without regret.

        An interruption costs about two seconds, or twice what each batch does anew if that takes longer.
        """
        each = max(seconds - self.values.shared_s, 1e-6) / n_coalitions
        wanted = round(max(SECONDS_PER_RECORD, self.values.repeated_s) / each)
        self._batch_size = max(1, min(max(GROWTH * n_coalitions, self._batch_size), wanted))

    def _append(self, keys: list[bytes], values: NDArray[np.float64]) -> None:
        if self.lines is not None:
            packed = base64.b64encode(b"".join(keys)).decode()
            self.lines.append({"coalitions": packed, "values": values.tolist()})
        self.known.update(zip(keys, values.tolist(), strict=True))

    def _read(self) -> None:
        width = -(-self.n_channels // 8)
        for record in () if self.lines is None else self.lines.read():
            packed, values = base64.b64decode(record["coalitions"]), record["values"]
            if len(packed) != width * len(values):
                continue
            keys = [packed[start : start + width] for start in range(0, len(packed), width)]
            self.known.update(zip(keys, values, strict=True))

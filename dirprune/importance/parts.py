"""Batches that are computed in smaller parts once memory has run out, which is said once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from dirprune.device import SHORTAGE_ERRORS, is_out_of_memory
from dirprune.errors import ImportanceError
from dirprune.importance.fresh_norm import tell_no_statistics

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

SHORTAGE = "out of memory"


class Shortage:
    """How small batches have become, so that work that follows starts as small.

    Args:
        n_halvings: With which they start.
        said: What the user was warned of already, by whomever.
        is_divisible: Otherwise batch norm takes statistics from the examples of a batch, in parts of which
            they would be others.
    """

    def __init__(self, n_halvings: int = 0, said: set[str] | None = None, is_divisible: bool = True) -> None:
        self.n_halvings = n_halvings
        self.is_divisible = is_divisible
        self._said: set[str] = set() if said is None else said

    def halve_(self, what: str) -> None:
        """Take half from now on, as memory ran out, and say so the first time."""
        if SHORTAGE not in self._said:
            logger.warning("%s on %s: going on in smaller batches", SHORTAGE, what)
        self._said.add(SHORTAGE)
        self.n_halvings += 1

    def compute_in_parts(
        self, positions: Tensor, compute: Callable[[Tensor], Result], what: str
    ) -> list[Result]:
        """Return what a function gives on parts of a batch, as large as memory allows.

        Args:
            positions: Of the examples of the batch, shape (n,), n >= 1.
            compute: Called with the positions of each part; anew with smaller ones where memory runs out.
            what: Is computed, for the warning.
        Raises:
            ImportanceError: If there is not enough memory for one example, or for what must stay whole.
        """
        while True:
            size = max(1, math.ceil(len(positions) / 2**self.n_halvings))
            try:
                return [compute(part) for part in positions.split(size)]
            except SHORTAGE_ERRORS as error:
                if not is_out_of_memory(error):
                    raise
                if not self.is_divisible:
                    raise tell_no_statistics(what, len(positions)) from error
                if size == 1:
                    raise tell_shortage(what) from error
                self.halve_(what)


def tell_shortage(what: str) -> ImportanceError:
    """Return the error that says that there is not enough memory for a single example."""
    return ImportanceError(
        f"{what}: expected memory for at least one example, got out of memory; "
        "free some, or use another device"
    )

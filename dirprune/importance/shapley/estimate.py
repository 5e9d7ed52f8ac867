"""What an estimate of Shapley values is, how many evaluations one takes, and what all estimators share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from dirprune.errors import ImportanceError

Array = NDArray[np.float64]
Coalitions = NDArray[np.bool_]
Value = Callable[[Coalitions], Array]
"""From coalitions, bool of shape (n_coalitions, n_channels), to their values, shape (n_coalitions,)."""

MAX_EXACT = 20
"""Channels up to which all coalitions can be evaluated."""
MOST_SAID = 10**24
MOST_DRAWS = 2**18
"""Blocks drawn at most where fewer coalitions are asked for; 140,000 pairs of 20 channels took 11 s."""


@dataclass(frozen=True)
class Estimate:
    """Shapley values of a group's channels.

    Attributes:
        values: Shape (n_channels,), in the unit of the coalitions' values: nats per image for the loss, a
            share of the images for the accuracy; higher means keep.
        half_widths: Of the 95% intervals, shape (n_channels,), in that unit, >= 0; None where the estimator
            has none.
        n_evaluations: Different coalitions whose values were used.
    """

    values: Array
    half_widths: Array | None
    n_evaluations: int


class BudgetError(ImportanceError):
    """A budget from which nothing can be said of a group, or that nobody can pay.

    Attributes:
        least: The evaluations from which on something can be said; 0 where they are too many.
    """

    def __init__(self, message: str, least: int = 0) -> None:
        super().__init__(message)
        self.least = least


def check_evaluations(n_evaluations: int, least: int, n_channels: int) -> None:
    """Refuse a budget from which nothing can be said, or that nobody can pay.

    A million coalitions are as many as exact values take at most: all of those of groups that small, and of
    larger ones minutes and gigabytes before the first value is asked for.

    Raises:
        BudgetError: If it is below `least` or above 2^20.
    """
    if n_evaluations > 2**MAX_EXACT:
        raise BudgetError(
            f"evaluations must be at most {2**MAX_EXACT:,}, the coalitions of {MAX_EXACT} channels, "
            f"got {say_number(n_evaluations)}"
        )
    if n_evaluations < least:
        raise BudgetError(
            f"evaluations must be at least {least} for a group of {n_channels} channels, got {n_evaluations}",
            least,
        )


def count_coalitions(n_channels: int) -> int:
    """Return how many coalitions a group has."""
    return 2**n_channels


def say_number(number: int) -> str:
    """Return a whole number in words that are not longer than a line."""
    return f"{number:,}" if number < MOST_SAID else f"more than {MOST_SAID:,}"


def is_everything(n_evaluations: int, n_channels: int) -> bool:
    """Return whether a budget pays for all coalitions, so that exact values cost no more."""
    return n_channels <= MAX_EXACT and n_evaluations >= count_coalitions(n_channels)


def borders(n_channels: int) -> Coalitions:
    """Return the empty and the full coalition, shape (2, n_channels)."""
    return np.array([[False], [True]]).repeat(n_channels, axis=1)


def evaluate_distinct(value: Value, coalitions: Coalitions) -> tuple[Array, int]:
    """Evaluate coalitions of which some may be the same, each once.

    Returns:
        The values of all, shape (n_coalitions,), and the number of different ones.
    """
    _, first, place = np.unique(
        np.packbits(coalitions, axis=1), axis=0, return_index=True, return_inverse=True
    )
    order = np.argsort(first)  # in the order asked for, so that an interruption leaves the first ones done
    found = np.empty(len(first))
    found[order] = value(coalitions[first[order]])
    return found[place.reshape(-1)], len(first)


def take_distinct(draws: Iterable[Coalitions], n_distinct: int, n_draws: int) -> Coalitions:
    """Return draws, in order and with repetitions, until one more different coalition would exceed a number.

    Args:
        draws: Blocks of coalitions that belong together, each of shape (n_in_block, n_channels).
        n_distinct: Most different coalitions.
        n_draws: Most blocks looked at; ends the wait for coalitions that are hardly ever drawn. No more are
            than the larger of `MOST_DRAWS` and `n_distinct`.
    """
    n_draws = min(n_draws, max(MOST_DRAWS, n_distinct))
    seen: set[bytes] = set()
    taken: list[Coalitions] = []
    for _, block in zip(range(n_draws), draws, strict=False):
        new = {row.tobytes() for row in block} - seen
        if len(seen) + len(new) > n_distinct:
            break
        seen |= new
        taken.append(block)
    return np.concatenate(taken)


def kernel_weights(n_channels: int) -> Array:
    """Return the Shapley kernel of one coalition of each size 1 .. n_channels - 1.

    (n - 1) / (C(n, s) s (n - s)), Lundberg and Lee 2017, theorem 2; shape (n_channels - 1,).
    """
    n = n_channels
    return np.array([(n - 1) / (comb(n, s) * s * (n - s)) for s in range(1, n)])


def solve_efficient(gram: Array, moment: Array, total: float) -> tuple[Array, Array]:
    """Minimise b' gram b / 2 - moment' b over the b that sum to `total`.

    Args:
        gram: Shape (n_channels, n_channels), symmetric, positive semidefinite.
        moment: Shape (n_channels,).
        total: What the values have to add up to: v(full) - v(empty).
    Returns:
        The solution, the nearest one to equal values where there are many; and the matrix that takes a change
        of `moment` to the change of the solution, shape (n_channels, n_channels).
    """
    n = len(moment)
    centre = np.eye(n) - 1 / n
    inverse = centre @ np.linalg.pinv(centre @ gram @ centre, rcond=1e-10, hermitian=True) @ centre
    equal = np.full(n, total / n)
    return equal + inverse @ (moment - gram @ equal), inverse


def quantile_of_student(degrees: float) -> float:
    """Return the 97.5% quantile of Student's t, right to 1% from 3 degrees of freedom on, for >= 1.

    Below that, degrees are rounded down, so that it is too large between two whole ones, up to three times.
    The expansion in powers of 1 / degrees is Abramowitz and Stegun 1964, 26.7.5.
    """
    z = 1.959963985
    if degrees < 2:
        return 12.7062
    if degrees < 3:
        return 4.3027
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))

"""What a coalition of channels is worth: the contract that every way of computing it keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dirprune.errors import ImportanceError

Coalitions = NDArray[np.bool_]
"""Shape (n_coalitions, n_channels): which channels are there; the absent ones are pruned."""

VALUES = ("loss", "accuracy")


class CoalitionValues(ABC):
    """The value of coalitions of one group's channels; higher is better.

    A coalition's value is minus the mean loss over the calibration examples (or their accuracy) when its
    channels alone enter the group's consumers, everything behind batch norm and activation, so that an absent
    channel is gone as after pruning. The same coalition always has the same value.

    Attributes:
        group: Name of the channel group.
        n_channels: Channels of the group.
        shared_s: Seconds of the last evaluation that went to what its coalitions share; of the last go where
            memory takes them in several.
        repeated_s: Of these, the seconds for what is not held: the next evaluation takes them again.
    """

    group: str
    n_channels: int
    shared_s: float = 0.0
    repeated_s: float = 0.0

    def evaluate(self, coalitions: Coalitions) -> NDArray[np.float64]:
        """Return the values of coalitions, in their order.

        Args:
            coalitions: Shape (n_coalitions, n_channels), bool.
        Returns:
            Shape (n_coalitions,), float64.
        Raises:
            ImportanceError: If the shape does not fit or a value is not finite.
        """
        coalitions = np.ascontiguousarray(coalitions)
        if coalitions.dtype != np.bool_ or coalitions.ndim != 2 or coalitions.shape[1] != self.n_channels:
            raise ImportanceError(
                f"coalitions of {self.group!r} must be bool of shape (n_coalitions, {self.n_channels}), "
                f"got {coalitions.dtype} of shape {coalitions.shape}"
            )
        if len(coalitions) == 0:
            return np.empty(0)
        values = self._compute(coalitions)
        if not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ImportanceError(
                f"values of coalitions of {self.group!r} must be finite, got {values[first]} with "
                f"{int(coalitions[first].sum())} of {self.n_channels} channels; "
                "look for NaN in weights and calibration inputs"
            )
        return values

    @abstractmethod
    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        """Return the values of checked, non-empty coalitions."""

    def describe(self) -> dict[str, Any]:
        """Return how the values are computed, for people; equal values may be computed in other ways."""
        return {"engine": type(self).__name__}

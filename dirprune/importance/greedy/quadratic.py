"""What removing any set of channels costs, to second order: searched without running the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
LEAST_GAIN = 1e-9


class Quadratic:
    """The increase of the loss when the channels with x = 1 are removed, and which of them are.

    With the switches of all channels at one, the gradient g of the mean loss with respect to them and rows u
    whose mean outer product is its curvature,

        increase(x) = - g . x + mean over rows of (u . x)^2 / 2.

    Only u . x is carried along, so that the matrix between all pairs of channels is never formed.

    Args:
        gradient: g, shape (n_channels,).
        factors: The rows u, shape (n_rows, n_channels), float32.
        groups: The number of each channel's group, shape (n_channels,).

    Attributes:
        is_removed: x, shape (n_channels,), bool.
    """

    def __init__(self, gradient: Numbers, factors: NDArray[np.float32], groups: NDArray[np.intp]) -> None:
        self.gradient, self.factors, self.groups = gradient, factors, groups
        self.is_removed = np.zeros(len(gradient), dtype=bool)
        self._diagonal = np.einsum("rc,rc->c", factors, factors, dtype=np.float64) / len(factors)
        self._moved = np.zeros(len(factors), dtype=np.float32)  # u . x

    def increase(self) -> float:
        """Return the increase of the loss by all that is removed."""
        moved = self._moved.astype(np.float64)
        return float(moved @ moved) / (2 * len(moved)) - float(self.gradient[self.is_removed].sum())

    def costs(self) -> Numbers:
        """Return what removing each channel costs after all that is removed; inf for those that are."""
        costs = self._slopes() + self._diagonal / 2
        costs[self.is_removed] = np.inf
        return costs

    def remove(self, channel: int) -> None:
        """Remove a channel that is there."""
        self.is_removed[channel] = True
        self._moved += self.factors[:, channel]

    def remove_cheapest(self, quotas: NDArray[np.intp]) -> None:
        """Remove so many channels of each group, always the one that costs least of all."""
        left = quotas.copy()
        while left.any():
            channel = int(np.where(left[self.groups] > 0, self.costs(), np.inf).argmin())
            self.remove(channel)
            left[self.groups[channel]] -= 1

    def exchange(self, n_sweeps: int) -> None:
        """Exchange removed channels with others of their groups, the best pair first, while that gains.

        Args:
            n_sweeps: Passes over the groups at most; in each, a group exchanges as often as it gains, but not
                more often than it has channels.
        """
        for _ in range(n_sweeps):
            n_made = sum(self._exchange_in(np.flatnonzero(self.groups == g)) for g in np.unique(self.groups))
            if n_made == 0:
                break

    def _exchange_in(self, channels: NDArray[np.intp]) -> int:
        """Exchange channels of one group; return how often."""
        own = self.factors[:, channels]
        products = (own.T @ own).astype(np.float64) / len(own)
        diagonal = self._diagonal[channels] / 2
        slopes = self._slopes()[channels]
        for n_made in range(len(channels)):
            is_removed = self.is_removed[channels]
            there, gone = np.flatnonzero(~is_removed), np.flatnonzero(is_removed)
            if not len(there) or not len(gone):
                return n_made
            leaving, entering = slopes[there] + diagonal[there], diagonal[gone] - slopes[gone]
            changes = leaving[:, None] + entering[None] - products[np.ix_(there, gone)]
            row, column = divmod(int(changes.argmin()), len(gone))
            if changes[row, column] > -LEAST_GAIN:
                return n_made
            leaves, enters = there[row], gone[column]
            self.remove(int(channels[leaves]))
            self.is_removed[channels[enters]] = False
            self._moved -= self.factors[:, channels[enters]]
            slopes += products[leaves] - products[enters]
        return len(channels)

    def _slopes(self) -> Numbers:
        """Return the derivative of the increase with respect to x, shape (n_channels,)."""
        return (self._moved @ self.factors).astype(np.float64) / len(self.factors) - self.gradient

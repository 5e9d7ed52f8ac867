"""The complete grid of LeNet-5 as a table: what every architecture costs, reaches, and is worth."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from search_grid import EPOCHS, SEEDS, WIDTHS

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.networks import create_network
from dirprune.pareto import hypervolume
from dirprune.projection import Projection
from dirprune.tracing import find_groups

TABLE = Path(__file__).with_name("data") / "lenet_grid.csv"
CHANCE = 0.1

Place = tuple[int, ...]
"""Which of its widths each group has, from 0; the point of the grid that a search proposes."""


class Grid:
    """Accuracies of all architectures, and the hypervolume of any of them.

    Args:
        path: A table that `search_grid.py pack` wrote.
    Attributes:
        names: The channel groups in forward order.
        costs: Costs of any architecture of the network.
        macs: Shape (5, 5, 5, 5).
        accuracies: Validation accuracies, shape (5, 5, 5, 5, seeds, epochs).
        best: Hypervolume of the whole grid, every architecture judged by the mean of its seeds.
    """

    def __init__(self, path: Path = TABLE) -> None:
        network, example = create_network("lenet5").eval(), torch.zeros(2, 1, 28, 28)
        grouping = find_groups(network, example)
        self.names = grouping.names
        self.costs = CostModel(network, grouping, example)
        shape = tuple(len(widths) for widths in WIDTHS)
        self.macs = np.zeros(shape, dtype=np.int64)
        self.accuracies = np.full((*shape, len(SEEDS), len(EPOCHS)), np.nan)
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                kept = [int(text) for text in row["architecture"].split("-")]
                place = tuple(widths.index(n) for widths, n in zip(WIDTHS, kept, strict=True))
                self.macs[place] = int(row["macs"])
                found = [float(row[f"val_accuracy_{epochs}"]) for epochs in EPOCHS]
                self.accuracies[place][SEEDS.index(int(row["seed"]))] = found
        if np.isnan(self.accuracies).any():
            raise ValueError(f"expected all {np.prod(shape)} architectures in every seed in {path}")
        self.best = self.measure_true(np.ndindex(*shape))

    def architecture(self, place: Place) -> Architecture:
        """Return the kept channels of a point of the grid."""
        return Architecture(
            {name: widths[i] for name, widths, i in zip(self.names, WIDTHS, place, strict=True)}
        )

    def nearest(self, architecture: Mapping[str, int]) -> Place:
        """Return the point whose widths come nearest, group by group; of two equally near the lower."""
        kept = [architecture[name] for name in self.names]
        return tuple(
            int(np.argmin(np.abs(np.array(widths) - n))) for widths, n in zip(WIDTHS, kept, strict=True)
        )

    def losses(self, place: Place, accuracy: float) -> list[float]:
        """Return both objectives as losses; MACs in fractions of the dense network's."""
        return [-accuracy, float(self.macs[place] / self.macs.max())]

    def measure_true(self, places: Iterable[Place]) -> float:
        """Return the hypervolume of architectures, each judged by the mean of its seeds at full resource."""
        return measure([self.losses(place, float(self.accuracies[place][:, -1].mean())) for place in places])


def measure(losses: list[list[float]]) -> float:
    """Return the hypervolume against chance accuracy and the dense network's MACs, as studies have it."""
    return hypervolume(np.array(losses).reshape(-1, 2), [-CHANCE, 1.0])


class GridProjection(Projection):
    """Projection of cost targets onto the widths of the grid."""

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid.costs, "macs", dict(zip(grid.names, (w[0] for w in WIDTHS), strict=True)))
        self.widths = [np.array(widths) for widths in WIDTHS]
        self._groups: NDArray[np.int64] = np.repeat(
            np.arange(len(WIDTHS)), [len(widths) - 1 for widths in WIDTHS]
        )
        self.highest_cost = int(grid.macs.max())


@cache
def load_grid() -> Grid:
    """Return the committed grid."""
    return Grid()

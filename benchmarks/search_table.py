"""A grid of architectures as a table: what each costs and reaches, and what any set of them is worth."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from search_grid import EPOCHS, SEEDS, SUBJECTS

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.networks import create_network
from dirprune.pareto import hypervolume
from dirprune.projection import Projection
from dirprune.tracing import find_groups

DATA = Path(__file__).with_name("data")
CHANCE = 0.1

Place = tuple[int, ...]
"""Which of its widths each group has, from 0; the point of the grid that a search proposes."""


class Table(ABC):
    """What all architectures of a grid cost and reach, and the hypervolume of any of them.

    Args:
        name: One of `SUBJECTS`.
    Attributes:
        subject: The network.
        names: Its channel groups in forward order.
        widths: What each of them can keep.
        costs: Costs of any architecture of the network.
        macs: Those of every point, shape (n_widths, ..., n_widths).
        accuracies: Mean validation accuracies, shape (n_widths, ..., n_widths, epochs).
        best: Hypervolume of the whole grid.
    """

    macs: NDArray[np.int64]
    accuracies: NDArray[np.float64]
    best: float

    def __init__(self, name: str) -> None:
        self.subject = SUBJECTS[name]
        network, example = create_network(name).eval(), torch.zeros(2, *self.subject.input_shape)
        grouping = find_groups(network, example)
        self.names, self.widths = grouping.names, self.subject.widths
        self.costs = CostModel(network, grouping, example)

    @abstractmethod
    def observe(self, place: Place, epochs: int, noise: np.random.Generator) -> float:
        """Return the validation accuracy of one training after so many passes.

        Args:
            noise: At the same state at every stop of a trial.
        """

    def architecture(self, place: Place) -> Architecture:
        """Return the kept channels of a point of the grid."""
        return Architecture(
            {name: widths[i] for name, widths, i in zip(self.names, self.widths, place, strict=True)}
        )

    def place(self, text: str) -> Place:
        """Return the point of an architecture as `train` names it."""
        kept = [int(part) for part in text.split("-")]
        return tuple(widths.index(n) for widths, n in zip(self.widths, kept, strict=True))

    def nearest(self, architecture: Mapping[str, int]) -> Place:
        """Return the point whose widths come nearest, group by group; of two equally near the lower."""
        kept = [architecture[name] for name in self.names]
        return tuple(
            int(np.argmin(np.abs(np.array(widths) - n))) for widths, n in zip(self.widths, kept, strict=True)
        )

    def losses(self, place: Place, accuracy: float) -> list[float]:
        """Return both objectives as losses; MACs in fractions of the dense network's."""
        return [-accuracy, float(self.macs[place] / self.macs.max())]

    def measure_true(self, places: Iterable[Place]) -> float:
        """Return the hypervolume of architectures, each judged by its mean at full resource."""
        return measure([self.losses(place, float(self.accuracies[place][-1])) for place in places])


class Grid(Table):
    """Every architecture trained in each of the seeds, as `search_grid.py pack` wrote them.

    Args:
        name: One of `SUBJECTS`, a complete one.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        shape = tuple(len(widths) for widths in self.widths)
        self.macs = np.zeros(shape, dtype=np.int64)
        self.by_seed = np.full((*shape, len(SEEDS), len(EPOCHS)), np.nan)
        for row in read_rows(name):
            place = self.place(row["architecture"])
            self.macs[place] = int(row["macs"])
            self.by_seed[place][SEEDS.index(int(row["seed"]))] = read_accuracies(row)
        if np.isnan(self.by_seed).any():
            raise ValueError(f"expected all {np.prod(shape)} architectures of {name} in every seed")
        self.accuracies = self.by_seed.mean(axis=-2)
        self.best = self.measure_true(np.ndindex(*shape))

    def observe(self, place: Place, epochs: int, noise: np.random.Generator) -> float:
        """Return the accuracy in one of the seeds."""
        return float(self.by_seed[place][noise.integers(len(SEEDS)), EPOCHS.index(epochs)])


def read_rows(name: str) -> Iterator[dict[str, str]]:
    """Yield what was trained."""
    with (DATA / f"{name}_grid.csv").open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def read_accuracies(row: Mapping[str, str]) -> list[float]:
    """Return the validation accuracy after each number of passes."""
    return [float(row[f"val_accuracy_{epochs}"]) for epochs in EPOCHS]


def measure(losses: list[list[float]]) -> float:
    """Return the hypervolume against chance accuracy and the dense network's MACs, as studies have it."""
    return hypervolume(np.array(losses).reshape(-1, 2), [-CHANCE, 1.0])


class TableProjection(Projection):
    """Projection of cost targets onto the widths of a grid."""

    def __init__(self, table: Table) -> None:
        super().__init__(
            table.costs, "macs", dict(zip(table.names, (w[0] for w in table.widths), strict=True))
        )
        self.widths = [np.array(widths) for widths in table.widths]
        self._groups: NDArray[np.int64] = np.repeat(
            np.arange(len(self.widths)), [len(widths) - 1 for widths in self.widths]
        )
        self.highest_cost = int(table.macs.max())


@cache
def load_table(name: str) -> Table:
    """Return the committed table of a network: complete, or modelled from a sample."""
    if SUBJECTS[name].is_complete:
        return Grid(name)
    from search_surrogate import Surrogate

    return Surrogate(name)

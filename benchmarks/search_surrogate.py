"""A grid too large to be trained, modelled from a sample; and how the model orders what it has not seen.

python benchmarks/search_surrogate.py resnet20
"""

from __future__ import annotations

import warnings

import click
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from search_grid import EPOCHS, SEEDS, SUBJECTS
from search_table import Place, Table, measure, read_accuracies, read_rows
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold

Floats = NDArray[np.float64]
N_FOLDS = 10
CHUNK = 100_000


class Surrogate(Table):
    """A Gaussian process of the logarithm of the error after each number of passes.

    Its mean is what an architecture reaches; a training lies about it as two seeds of the sample lie apart.

    Args:
        name: One of `SUBJECTS`, whose MACs are a sum over its groups.
    Attributes:
        places: Points of the sample in the first seed, shape (n_sampled, n_groups).
        errors: Their validation errors, shape (n_sampled, epochs).
        deviations: Standard deviation of a training's accuracy after each number of passes, shape (epochs,).
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        shape = tuple(len(widths) for widths in self.widths)
        sampled = {
            (self.place(row["architecture"]), int(row["seed"])): (int(row["macs"]), read_accuracies(row))
            for row in read_rows(name)
        }
        first = {place: found for (place, seed), found in sampled.items() if seed == SEEDS[0]}
        self.places = np.array(list(first))
        self.errors = 1 - np.array([accuracies for _, accuracies in first.values()])
        again = [place for place, seed in sampled if seed == SEEDS[1]]
        apart = [np.subtract(sampled[place, SEEDS[1]][1], first[place][1]) / np.sqrt(2) for place in again]
        self.deviations = np.sqrt(np.square(apart).mean(0))

        self.macs = self._sum_macs(shape)
        if [int(self.macs[place]) for place in first] != [macs for macs, _ in first.values()]:
            raise ValueError(f"expected MACs of {name} to be a sum over its groups")
        every = np.indices(shape).reshape(len(shape), -1).T
        self.accuracies = 1 - model(self.places, self.errors, every).reshape(*shape, len(EPOCHS))
        self.best = self._measure_whole()

    def observe(self, place: Place, epochs: int, noise: np.random.Generator) -> float:
        """Return the mean and what one training differs by; one that is lucky stays so."""
        after = EPOCHS.index(epochs)
        return float(self.accuracies[place][after] + self.deviations[after] * noise.standard_normal())

    def _sum_macs(self, shape: Place) -> NDArray[np.int64]:
        least = self.costs.costs(self.architecture(tuple(0 for _ in shape))).macs
        total = np.full(shape, least, dtype=np.int64)
        for group, n_widths in enumerate(shape):
            alone = [
                self.costs.costs(
                    self.architecture(tuple(width if g == group else 0 for g in range(len(shape))))
                ).macs
                - least
                for width in range(n_widths)
            ]
            total += np.array(alone).reshape([n_widths if g == group else 1 for g in range(len(shape))])
        return total

    def _measure_whole(self) -> float:
        """Return the hypervolume of the grid: of the points that no cheaper one equals."""
        macs, accuracies = self.macs.ravel(), self.accuracies[..., -1].ravel()
        order = np.lexsort((-accuracies, macs))
        highest = np.maximum.accumulate(accuracies[order])
        front = order[np.append(True, highest[1:] > highest[:-1])]
        return measure([[-accuracies[i], macs[i] / macs.max()] for i in front])


def model(places: NDArray[np.int64], errors: Floats, wanted: NDArray[np.int64]) -> Floats:
    """Return the errors to be expected of other points.

    Args:
        places: Points that were trained, shape (n_points, n_groups).
        errors: What they ended with, each above 0, shape (n_points, n_outputs).
        wanted: Points, shape (n_wanted, n_groups).
    Returns:
        Shape (n_wanted, n_outputs).
    """
    found = []
    for column in np.log(errors).T:
        kernel = ConstantKernel(10.0) * RBF(np.full(places.shape[1], 10.0), (1.0, 1e3)) + WhiteKernel(0.01)
        process = GaussianProcessRegressor(kernel, normalize_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a group that does not matter has no scale
            process.fit(places, column)
        parts = [process.predict(wanted[i : i + CHUNK]) for i in range(0, len(wanted), CHUNK)]
        found.append(np.exp(np.concatenate(parts)))
    return np.stack(found, axis=1)


def correlate(table: Surrogate) -> list[tuple[float, float, float]]:
    """Return for each number of passes how the model orders points that it was not fitted to.

    Returns:
        Spearman's correlation of all; its mean within fifths of the costs; R2 of the logarithm of the error.
    """
    predicted = np.empty_like(table.errors)
    for seen, held_out in KFold(N_FOLDS, shuffle=True, random_state=0).split(table.places):
        predicted[held_out] = model(table.places[seen], table.errors[seen], table.places[held_out])
    costs = np.array([table.macs[tuple(place)] for place in table.places])
    fifths = np.array_split(np.argsort(costs), 5)
    found = []
    for true, guess in zip(np.log(table.errors).T, np.log(predicted).T, strict=True):
        within = [spearmanr(true[fifth], guess[fifth]).statistic for fifth in fifths]
        r2 = 1 - np.mean((true - guess) ** 2) / true.var()
        found.append((float(spearmanr(true, guess).statistic), float(np.mean(within)), float(r2)))
    return found


@click.command
@click.argument("name", type=click.Choice([name for name in SUBJECTS if not SUBJECTS[name].is_complete]))
def main(name: str) -> None:
    """Print how well the model of a sample orders architectures that it was not fitted to."""
    table = Surrogate(name)
    click.echo(f"{len(table.places)} architectures; {N_FOLDS} folds")
    for epochs, (whole, within, r2), deviation in zip(
        EPOCHS, correlate(table), table.deviations, strict=True
    ):
        click.echo(
            f"{epochs} passes: Spearman {whole:.3f}, within fifths of the costs {within:.3f}, R2 {r2:.3f}; "
            f"a training's standard deviation {100 * deviation:.2f} points"
        )


if __name__ == "__main__":
    main()

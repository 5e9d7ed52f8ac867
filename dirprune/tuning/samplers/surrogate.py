"""A Gaussian process of one objective, over whatever features configurations have."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

Floats = NDArray[np.float64]

MARGIN = 0.3
REFIT = 4


class Surrogate:
    """Predict losses, and how uncertain they are, from few trials.

    The logarithm of the distance to a little below the lowest loss is modelled: losses pile up near the best
    and have a long tail. The kernel is a Matern one [5/2; Rasmussen and Williams 2006, eq. 4.17] with one
    length scale for all features, which few trials can tell, and noise. Its parameters are those of the
    largest marginal likelihood, looked for again after every fourth trial.
    """

    def __init__(self) -> None:
        self._process: GaussianProcessRegressor | None = None
        self._n_fitted = 0
        self._origin, self._mean, self._scale = 0.0, 0.0, 1.0

    def fit(self, features: Floats, losses: Floats, n_told: int) -> None:
        """Take what is known.

        Args:
            features: Shape (n_trials, n_features).
            losses: Shape (n_trials,), finite.
            n_told: Trials of the study so far; those that are given may be fewer.
        """
        lowest, typical = float(losses.min()), float(np.median(losses))
        margin = MARGIN * (typical - lowest) or MARGIN * float(np.ptp(losses)) or 1.0
        self._origin = lowest - margin
        values = np.log(losses - self._origin)
        self._mean, self._scale = float(values.mean()), float(values.std()) or 1.0
        process = self._process
        if process is None or n_told - self._n_fitted >= REFIT:
            self._n_fitted = n_told
            kernel = _make_kernel(features.shape[1]) if process is None else process.kernel_
            self._process = GaussianProcessRegressor(kernel, random_state=0)
        else:
            self._process = GaussianProcessRegressor(process.kernel_, optimizer=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # at a bound it is as good as it gets
            self._process.fit(features, (values - self._mean) / self._scale)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation without noise, each of shape (n,), for `to_losses`."""
        assert self._process is not None
        mean, deviation = self._process.predict(features, return_std=True)
        noise = self._process.kernel_.k2.noise_level
        deviation = np.sqrt(np.maximum(deviation**2 - noise, 1e-12))
        return mean * self._scale + self._mean, deviation * self._scale

    def to_losses(self, values: Floats) -> Floats:
        """Return the losses of modelled values, of the same shape."""
        return self._origin + np.exp(values)


def _make_kernel(n_features: int) -> ConstantKernel:
    length = max(1.0, np.sqrt(n_features) / 2)
    smooth = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(length, (0.1, 30.0 * length), nu=2.5)
    return smooth + WhiteKernel(0.01, (1e-4, 1.0))

"""A Gaussian process over coalitions whose Shapley values are known in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dirprune.importance.shapley.estimate import Array, Coalitions

N_FITTED = (150, 250)
"""Coalitions that the shape is fitted to: a fifth of all within these bounds."""
N_STEPS = 25
BLOCK = 1 << 20
"""Numbers of a matrix that are computed at once: nothing but the coalitions and one matrix is large."""
N_BLOCKS = 8
"""So large, that are there at once."""
STEP = 1e-4
N_OUTSTANDING = 4
NOISELESS = 1e-8
"""Variance up to which a coalition counts as known exactly."""
STRETCH_SPREAD = 0.1
"""Standard deviation, before any coalition is seen, of the share by which the additive part is too small
or too large: the shape is one for all channels, and where few of them matter it pulls those too far to the
mean."""
JUMPS = (0.0, 1.0)
"""Variances that the values of the empty and the full coalition may have of their own."""


class Shape(NamedTuple):
    """The form of the covariance: logarithms of amplitudes and lengths, and how the former fall with size.

    Values are in units of the standard deviation of those seen, sizes in units of the number of channels.
    """

    mean: float = 0.0
    mean_length: float = 0.0
    additive: float = -1.5
    additive_fall: float = 0.0
    additive_length: float = 0.0
    pairs: float = -3.0
    pairs_fall: float = 0.0
    noise: float = -2.0
    noise_fall: float = 0.0
    bend: float = 0.0

    def amplitude(self, at_half: float, fall: float, sizes: Array) -> Array:
        """Return the amplitude at sizes in 0 .. 1: its logarithm is a parabola whose bend all parts share."""
        centred = sizes - 0.5
        return np.exp(at_half - fall * centred + self.bend * centred**2)


PRIOR = np.array(Shape())
PRIOR_SPREAD = np.array([2.0, 1.0, 2.0, 3.0, 0.4, 2.0, 3.0, 2.0, 3.0, 1.5])
"""Of the length of the additive part and the bend, chosen on LeNet-5s: from few coalitions, wider ones let
chance decide how much the borders' order of channels counts for the sizes between."""


class Surrogate:
    """Describes the values of coalitions by their size, by their channels, by pairs of them, and by noise.

        v(S) = mean(|S|) + sum_i g_i(|S|) [i in S] + sum_{i < j} h_ij(|S|) [i, j in S] + noise(S)

    with sum_i g_i(s) = 0 and sum_j h_ij(s) = 0 for each size s: within a size, the parts are the orthogonal
    harmonic components of degree 0, 1, 2 and above of functions on subsets (Diaconis 1988, chapter 8). The
    mean, all g_i and all h_ij are Gaussian processes over s. Shapley values are those of the additive part,

        phi_i = (v(full) - v(empty)) / n + sum_{s = 1 .. n - 1} g_i(s) / (n - 1),

    plus the Shapley values of the noise, which belongs to v as well. They are linear in v, so that their
    posterior is known. With all coalitions its mean is the exact value whatever the model: that decides how
    fast values converge, not to what.

    It keeps one matrix of n_coalitions^2 numbers, which is inverted where it lies: see `count_bytes`.

    Args:
        coalitions: Different ones, among them the empty and the full one, shape (n_coalitions, n_channels);
            n_channels >= 3.
        values: Shape (n_coalitions,).
    """

    jump = 0.0

    def __init__(self, coalitions: Coalitions, values: Array) -> None:
        self.n = coalitions.shape[1]
        self.sizes_inside = np.arange(1.0, self.n)
        inner = values[2:]  # the empty and the full coalition do not tell channels apart
        self.centre, self.scale = float(inner.mean()), float(inner.std()) or 1.0
        self.coalitions = coalitions.astype(float)
        self.targets = (values - self.centre) / self.scale
        self._choose_shape(self._find_telling())
        self.precision = _invert_(self._covariance_in_blocks())
        self.weights = self.precision @ self.targets
        self.stretch, self.stretch_deviation = self._find_stretch()

    def _find_stretch(self) -> tuple[float, float]:
        """Return by which share of the additive part the values left out exceed it, and how sure that is.

        The slope of the leave-one-out errors over the additive part of the prediction for the value left out,
        by weighted least squares with White's variance, shrunk by `STRETCH_SPREAD`.
        """
        inside = self._noise(self.shape, self.coalitions.sum(1)) > NOISELESS
        if not inside.any():  # the parts explain every value
            return 0.0, 0.0
        diagonal = np.diag(self.precision)
        errors = self.weights / diagonal
        left_out = np.empty(len(errors))
        for rows in _split(len(errors), len(errors)):
            additive = self._additive(self.coalitions[rows])
            among = (additive * self.precision[:, rows].T).sum(1)
            left_out[rows] = additive @ self.weights - among * errors[rows]
        weighted = np.where(inside, diagonal * left_out, 0)
        strength = weighted @ left_out
        if not strength > 0:  # there is no additive part
            return 0.0, 0.0
        slope, variance = weighted @ errors / strength, ((weighted * errors) ** 2).sum() / strength**2
        trust = STRETCH_SPREAD**2 / (STRETCH_SPREAD**2 + variance)
        return float(trust * slope), float(np.sqrt(trust * variance))

    def _find_telling(self) -> NDArray[np.intp]:
        """Return places of coalitions spread over all, with both ends and the borders that stand out most."""
        n_all = len(self.targets)
        n_fitted = min(max(n_all // 5, N_FITTED[0]), N_FITTED[1])
        places = [0, 1, *np.linspace(0, n_all - 1, n_fitted).round().astype(int)]
        for start in (2, 2 + self.n):
            border = self.targets[start : start + self.n]
            if len(border) > 0:
                order = np.argsort(-np.abs(border - np.median(border)), kind="stable")
                places.extend(start + order[:N_OUTSTANDING])
        return np.unique(places)

    def _choose_shape(self, places: NDArray[np.intp]) -> None:
        """Fit the shape, with a jump at the empty and the full coalition only where that explains more."""
        lowest = np.inf
        for jump in JUMPS:
            before, self.jump = self.jump, jump
            shape = self._fit_shape(self.coalitions[places], self.targets[places])
            loss, _ = self._judge(np.array(shape), self.coalitions[places], self.targets[places])
            if loss < lowest - 1:
                lowest, self.shape = loss, shape
            else:
                self.jump = before

    def shapley(self) -> tuple[Array, Array]:
        """Return the posterior means and standard deviations of the Shapley values, each (n_channels,)."""
        n = self.n
        prior = self._sum_over(self.sizes_inside).sum() * (1 - 1 / n) / (n - 1) ** 2
        prior += self._prior_of_noise()
        sizes = self.coalitions.sum(1)
        over, over_unseen = self._sum_over(sizes), self._sum_over(sizes, self._unseen())
        noise = self._noise(self.shape, sizes)
        inside, outside = _coefficients(sizes, n)
        # What single channels and coalitions that lack one say is exact; what is between them is stretched,
        # of each size as far as it was not seen.
        seen = over_unseen * self.weights / (n - 1)
        between = self.coalitions.T @ seen - sizes @ seen / n
        # v(full) - v(empty) is known, and so is what it adds to each channel.
        rise = (self.targets[1] - self.targets[0]) / n
        means, variances = self.stretch * between + rise, (self.stretch_deviation * between) ** 2
        for channels in _split(n, len(sizes)):
            present = self.coalitions[:, channels]
            links = (over / (n - 1))[:, None] * (present - sizes[:, None] / n)
            links += noise[:, None] * (present * inside[:, None] - outside[:, None])
            means[channels] += links.T @ self.weights
            variances[channels] += np.maximum(prior - (links * (self.precision @ links)).sum(0), 0)
        return means * self.scale, np.sqrt(variances) * self.scale

    def _sum_over(self, sizes: Array, weights: Array | None = None) -> Array:
        """Return the covariance of g_i at sizes with the sum of g_i over 1 .. n - 1, shape (n_sizes,).

        Args:
            sizes: Shape (n_sizes,), many of them the same.
            weights: Of the sizes 1 .. n - 1 in the sum; ones when None.
        """
        different, places = np.unique(sizes, return_inverse=True)
        sums = np.empty(len(different))
        for rows in _split(len(different), self.n):
            over = self._over_sizes(self.shape, different[rows] / self.n, self.sizes_inside / self.n)
            sums[rows] = over.sum(1) if weights is None else (over * weights).sum(1)
        return sums[places.reshape(-1)]

    def _unseen(self) -> Array:
        """Return the share that was not seen of coalitions of sizes 1 .. n - 1; 0 at both ends, (n - 1,)."""
        unseen = np.ones(self.n + 1)
        for size, n_seen in zip(
            *np.unique(self.coalitions.sum(1).astype(int), return_counts=True), strict=True
        ):
            unseen[size] = 1 - int(n_seen) / comb(self.n, int(size))
        unseen[[1, -2]] = 0
        return unseen[1:-1]

    def predict(self, coalitions: Coalitions) -> Array:
        """Return the posterior means of the values of coalitions between the borders, (n_coalitions,)."""
        means = [np.empty(0)]
        for rows in _split(len(coalitions), len(self.coalitions)):
            block = coalitions[rows].astype(float)
            covariance = self._covariance(self.shape, block, self.coalitions)
            covariance += self.stretch * self._additive(block)
            means.append(covariance @ self.weights)
        return np.concatenate(means) * self.scale + self.centre

    def overconfidence(self) -> float:
        """Return the root mean square of the leave-one-out errors in their own standard deviations.

        Over all coalitions and over those with noise, the larger. Sundararajan and Keerthi 2001, equation 13.
        """
        errors = self.weights**2 / np.diag(self.precision)
        is_noisy = self._noise(self.shape, self.coalitions.sum(1)) > NOISELESS
        of_noisy = errors[is_noisy].mean() if is_noisy.any() else 0.0
        return float(np.sqrt(max(errors.mean(), of_noisy)))

    def _prior_of_noise(self) -> float:
        """Return the variance of a Shapley value of the noise before any coalition is seen."""
        n = self.n
        variances = self._noise(self.shape, self.sizes_inside)
        shares = np.array([1 / comb(n - 1, s - 1) + 1 / comb(n - 1, s) for s in range(1, n)])
        return float(variances @ shares) / n**2

    def _over_sizes(self, shape: Shape, left: Array, right: Array) -> Array:
        """Return the covariance of g_i between sizes, (n_left, n_right): Matern 3/2 times amplitudes."""
        amplitudes = (shape.amplitude(shape.additive, shape.additive_fall, part) for part in (left, right))
        return np.outer(*amplitudes) * _matern(left, right, shape.additive_length)

    def _covariance(self, shape: Shape, left: Array, right: Array) -> Array:
        """Return the covariance of values without noise, shape (n_left, n_right)."""
        first, second = _harmonics(left, right)
        sizes = left.sum(1) / self.n, right.sum(1) / self.n
        covariance = np.exp(2 * shape.mean) * (1 + _smooth(*sizes, shape.mean_length))
        covariance += self._over_sizes(shape, *sizes) * first
        of_pairs = (shape.amplitude(shape.pairs, shape.pairs_fall, part) for part in sizes)
        covariance += np.outer(*of_pairs) * _matern(*sizes, 0.0) * second
        return covariance

    def _additive(self, left: Array) -> Array:
        """Return the covariance of the additive part with that of the coalitions seen, (n_left, n_seen)."""
        first, _ = _harmonics(left, self.coalitions)
        return self._over_sizes(self.shape, left.sum(1) / self.n, self.coalitions.sum(1) / self.n) * first

    def _covariance_in_blocks(self) -> Array:
        """Return the covariance of the values seen, with noise, shape (n_coalitions, n_coalitions)."""
        n_coalitions = len(self.coalitions)
        covariance = np.empty((n_coalitions, n_coalitions))
        for rows in _split(n_coalitions, n_coalitions):
            covariance[rows] = self._covariance(self.shape, self.coalitions[rows], self.coalitions)
        np.einsum("ii->i", covariance)[:] += self._noise(self.shape, self.coalitions.sum(1))
        return covariance

    def _noise(self, shape: Shape, sizes: Array) -> Array:
        """Return the variances of the noise; coalitions next to the borders interact in pairs alone."""
        variances = shape.amplitude(shape.noise, shape.noise_fall, sizes / self.n) ** 2
        to_border = np.minimum(sizes, self.n - sizes)
        return np.where(to_border > 2, variances, np.where(to_border == 0, self.jump, 0)) + 1e-9

    def _fit_shape(self, coalitions: Array, targets: Array) -> Shape:
        """Maximise the posterior of the shape by Fisher scoring with Levenberg's damping."""
        position, damping = PRIOR.copy(), 1.0
        loss, whole = self._judge(position, coalitions, targets)
        for _ in range(N_STEPS):
            inverse = np.linalg.inv(whole)
            weights = inverse @ targets
            slopes = [
                self._whole(position + STEP * unit, coalitions) - whole for unit in np.eye(len(position))
            ]
            turned = [inverse @ slope / STEP for slope in slopes]
            gradient = np.array([(np.trace(t) - targets @ t @ weights) / 2 for t in turned])
            gradient += (position - PRIOR) / PRIOR_SPREAD**2
            fisher = np.array([[np.vdot(a.T, b) / 2 for b in turned] for a in turned])
            fisher += np.diag(1 / PRIOR_SPREAD**2)
            while damping < 1e6:
                step = np.linalg.solve(fisher + damping * np.diag(np.diag(fisher)), gradient)
                proposal = np.clip(position - step, PRIOR - 4 * PRIOR_SPREAD, PRIOR + 4 * PRIOR_SPREAD)
                other, other_whole = self._judge(proposal, coalitions, targets)
                if other < loss:
                    break
                damping *= 4
            else:
                break
            gain, position, loss, whole = loss - other, proposal, other, other_whole
            damping /= 5
            if gain < 0.01:
                break
        return Shape(*position)

    def _whole(self, position: Array, coalitions: Array) -> Array:
        shape = Shape(*position)
        return self._covariance(shape, coalitions, coalitions) + np.diag(
            self._noise(shape, coalitions.sum(1))
        )

    def _judge(self, position: Array, coalitions: Array, targets: Array) -> tuple[float, Array]:
        """Return minus the logarithm of the posterior up to a constant, and the covariance."""
        whole = self._whole(position, coalitions)
        try:
            factor = np.linalg.cholesky(whole)
        except np.linalg.LinAlgError:
            return float("inf"), whole
        fit = np.linalg.solve(factor, targets)
        prior = (((position - PRIOR) / PRIOR_SPREAD) ** 2).sum()
        return float((fit @ fit + prior) / 2 + np.log(np.diag(factor)).sum()), whole


def count_bytes(n_coalitions: int, n_channels: int) -> int:
    """Return about how many bytes a `Surrogate` takes: its matrix, the coalitions, and blocks."""
    return 8 * (n_coalitions * (n_coalitions + n_channels) + N_BLOCKS * min(n_coalitions**2, BLOCK))


def _split(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield the rows of a matrix in blocks of at most `BLOCK` numbers."""
    size = max(1, BLOCK // n_columns)
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


def _invert_(matrix: Array) -> Array:
    """Return the inverse of a square matrix, in its own memory.

    Raises:
        numpy.linalg.LinAlgError: If there is none.
    """
    from scipy.linalg import lapack  # slow to import, as for all that lists methods

    n_work = int(lapack.dgetri_lwork(len(matrix))[0])
    factors, pivots, is_singular = lapack.dgetrf(matrix.T, overwrite_a=True)
    if is_singular == 0:
        inverse, is_singular = lapack.dgetri(factors, pivots, lwork=n_work, overwrite_lu=True)
    if is_singular:
        raise np.linalg.LinAlgError("Singular matrix")
    return inverse.T


def _coefficients(sizes: Array, n_channels: int) -> tuple[Array, Array]:
    """Return what each Shapley value has of the values of coalitions of some sizes.

    The coefficient is 1 / (n C(n - 1, s - 1)) where the channel is in, -1 / (n C(n - 1, s)) where it is not,
    0 for the empty and the full coalition.

    Returns:
        The difference of both, and minus the second, each of shape (n_coalitions,).
    """
    n = n_channels
    inside = np.array([0.0, *(1 / (n * comb(n - 1, s - 1)) for s in range(1, n)), 0.0])
    outside = np.array([0.0, *(1 / (n * comb(n - 1, s)) for s in range(1, n)), 0.0])
    places = sizes.astype(int)
    return (inside + outside)[places], outside[places]


def _harmonics(left: Array, right: Array) -> tuple[Array, Array]:
    """Return the reproducing kernels of the components of degree 1 and 2, each (n_left, n_right).

    With m = |S and T|, s = |S|, t = |T| they are K1 = m - s t / n, and C(m, 2) less what lies in lower
    degrees, (s - 1)(t - 1) K1 / (n - 2) + C(s, 2) C(t, 2) / C(n, 2).
    """
    n = left.shape[1]
    common = left @ right.T
    sizes = left.sum(1)[:, None], right.sum(1)[None, :]
    first = common - sizes[0] * sizes[1] / n
    second = _pairs(common) - (sizes[0] - 1) * (sizes[1] - 1) * first / (n - 2)
    second -= _pairs(sizes[0]) * _pairs(sizes[1]) / _pairs(np.array(float(n)))
    return first, second


def _pairs(count: Array) -> Array:
    return count * (count - 1) / 2


def _matern(left: Array, right: Array, log_length: float) -> Array:
    distances = np.abs(left[:, None] - right[None, :]) * np.sqrt(3) * np.exp(-log_length)
    return (1 + distances) * np.exp(-distances)


def _smooth(left: Array, right: Array, log_length: float) -> Array:
    distances = np.abs(left[:, None] - right[None, :]) * np.sqrt(5) * np.exp(-log_length)
    return (1 + distances + distances**2 / 3) * np.exp(-distances)

"""A Gaussian process over coalitions whose Shapley values are known in closed form."""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dirprune.importance.shapley.estimate import Array, Coalitions

N_FITTED = (150, 250)
"""Coalitions that the shape is fitted to: a fifth of all within these bounds."""
N_STEPS = 25
BLOCK = 4096
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
PRIOR_SPREAD = np.array([2.0, 1.0, 2.0, 3.0, 1.5, 2.0, 3.0, 2.0, 3.0, 4.0])


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

    Args:
        coalitions: Different ones, among them the empty and the full one, shape (n_coalitions, n_channels);
            n_channels >= 3.
        values: Shape (n_coalitions,).
    """

    jump = 0.0

    def __init__(self, coalitions: Coalitions, values: Array) -> None:
        self.n = coalitions.shape[1]
        self.sizes_inside = np.arange(1, self.n)
        inner = values[2:]  # the empty and the full coalition do not tell channels apart
        self.centre, self.scale = float(inner.mean()), float(inner.std()) or 1.0
        self.coalitions = coalitions.astype(float)
        self.targets = (values - self.centre) / self.scale
        self._choose_shape(self._find_telling())
        covariance = self._covariance(self.shape, self.coalitions, self.coalitions)
        self.precision = np.linalg.inv(covariance + np.diag(self._noise(self.shape, self.coalitions)))
        self.weights = self.precision @ self.targets
        self.stretch, self.stretch_deviation = self._find_stretch()

    def _find_stretch(self) -> tuple[float, float]:
        """Return by which share of the additive part the values left out exceed it, and how sure that is.

        The slope of the leave-one-out errors over the additive part of the prediction for the value left out,
        by weighted least squares with White's variance, shrunk by `STRETCH_SPREAD`.
        """
        inside = self._noise(self.shape, self.coalitions) > NOISELESS
        if not inside.any():  # the parts explain every value
            return 0.0, 0.0
        sizes = self.coalitions.sum(1) / self.n
        first, _ = _harmonics(self.coalitions, self.coalitions)
        additive = self._over_sizes(self.shape, sizes, sizes) * first
        diagonal = np.diag(self.precision)
        errors = self.weights / diagonal
        left_out = additive @ self.weights - (additive * self.precision.T).sum(1) * errors
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
        within = self._over_sizes(self.shape, self.sizes_inside / n, self.sizes_inside / n)
        prior = within.sum() * (1 - 1 / n) / (n - 1) ** 2
        sizes = self.coalitions.sum(1)
        over = self._over_sizes(self.shape, sizes / n, self.sizes_inside / n) / (n - 1)
        members = self.coalitions - sizes[:, None] / n
        # What single channels and coalitions that lack one say is exact; what is between them is stretched,
        # of each size as far as it was not seen.
        between = ((over * self._unseen()).sum(1)[:, None] * members).T @ self.weights
        links = over.sum(1)[:, None] * members
        noise = self._noise(self.shape, self.coalitions)
        links += noise[:, None] * shapley_coefficients(self.coalitions)
        prior += self._prior_of_noise()
        # v(full) - v(empty) is known, and so is what it adds to each channel.
        rise = (self.targets[1] - self.targets[0]) / n
        variances = np.maximum(prior - (links * (self.precision @ links)).sum(0), 0)
        variances += (self.stretch_deviation * between) ** 2
        means = links.T @ self.weights + self.stretch * between + rise
        return means * self.scale, np.sqrt(variances) * self.scale

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
        means = []
        for start in range(0, len(coalitions), BLOCK):
            block = coalitions[start : start + BLOCK].astype(float)
            covariance = self._covariance(self.shape, block, self.coalitions)
            first, _ = _harmonics(block, self.coalitions)
            sizes = block.sum(1) / self.n, self.coalitions.sum(1) / self.n
            covariance += self.stretch * self._over_sizes(self.shape, *sizes) * first
            means.append(covariance @ self.weights)
        return np.concatenate(means) * self.scale + self.centre

    def overconfidence(self) -> float:
        """Return the root mean square of the leave-one-out errors in their own standard deviations.

        Over all coalitions and over those with noise, the larger. Sundararajan and Keerthi 2001, equation 13.
        """
        errors = self.weights**2 / np.diag(self.precision)
        is_noisy = self._noise(self.shape, self.coalitions) > NOISELESS
        of_noisy = errors[is_noisy].mean() if is_noisy.any() else 0.0
        return float(np.sqrt(max(errors.mean(), of_noisy)))

    def _prior_of_noise(self) -> float:
        """Return the variance of a Shapley value of the noise before any coalition is seen."""
        n = self.n
        variances = self._noise(self.shape, np.tri(n + 1, n, -1))[1:-1]
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

    def _noise(self, shape: Shape, coalitions: Array) -> Array:
        """Return the variances of the noise; coalitions next to the borders interact in pairs alone."""
        sizes = coalitions.sum(1)
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
        return self._covariance(shape, coalitions, coalitions) + np.diag(self._noise(shape, coalitions))

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


def shapley_coefficients(coalitions: Array) -> Array:
    """Return what each Shapley value has of the values of coalitions, shape (n_coalitions, n_channels).

    1 / (n C(n - 1, s - 1)) where the channel is in, -1 / (n C(n - 1, s)) where it is not, 0 for the empty and
    the full coalition.
    """
    n = coalitions.shape[1]
    inside = np.array([0.0, *(1 / (n * comb(n - 1, s - 1)) for s in range(1, n)), 0.0])
    outside = np.array([0.0, *(1 / (n * comb(n - 1, s)) for s in range(1, n)), 0.0])
    sizes = coalitions.sum(1).astype(int)
    return coalitions * (inside + outside)[sizes][:, None] - outside[sizes][:, None]


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

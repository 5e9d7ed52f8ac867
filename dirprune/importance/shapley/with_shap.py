"""The explainers of the shap library on the same values: a check from outside, and an option."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from dirprune.errors import ImportanceError
from dirprune.importance.shapley.estimate import Array, Estimate, Value, borders, check_evaluations

EXPLAINERS = ("kernel", "permutation")


def estimate_with_shap(
    value: Value, n_channels: int, n_evaluations: int, seed: int, explainer: str = "kernel"
) -> Estimate:
    """Let shap explain the full coalition against the empty one, with channels for its features.

    Its sequences are its own: a larger budget need not begin with the coalitions of a smaller one.

    Args:
        value: Of coalitions of the group.
        n_channels: Of the group.
        n_evaluations: Most evaluations, repeated ones among them; at least 2 n_channels + 2.
        seed: Of what is drawn.
        explainer: "kernel" (KernelExplainer without selection of features) or "permutation".
    Returns:
        An estimate without intervals.
    Raises:
        ImportanceError: If shap is not there or the budget is too small.
    """
    check_evaluations(n_evaluations, 2 * n_channels + 2, n_channels)
    value(borders(n_channels))  # what it may raise comes before shap, which prints of every error
    seen: set[bytes] = set()

    def predict(rows: Any) -> Array:
        coalitions = np.asarray(rows) > 0.5
        seen.update(row.tobytes() for row in coalitions)
        return value(coalitions)

    before = np.random.get_state()
    np.random.seed(seed % 2**32)  # shap draws from the global state only; it is put back below
    try:
        values = _explain(predict, n_channels, n_evaluations, seed, explainer)
    finally:
        np.random.set_state(before)
    return Estimate(np.asarray(values, dtype=np.float64).reshape(n_channels), None, len(seen))


def _explain(predict: Any, n_channels: int, n_evaluations: int, seed: int, explainer: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries that shap imports
            import shap
    except ImportError as error:
        raise ImportanceError(
            f"method shapley-shap needs the package shap, got {error}; "
            "try method shapley-kernel, or pip install shap"
        ) from error
    none, every = np.zeros((1, n_channels)), np.ones((1, n_channels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if explainer == "kernel":
            kernel = shap.KernelExplainer(predict, none)
            return kernel.shap_values(every, nsamples=n_evaluations - 2, l1_reg=False, silent=True)
        permutation = shap.explainers.Permutation(predict, none, seed=seed % 2**32)
        return permutation(every, max_evals=n_evaluations, silent=True).values

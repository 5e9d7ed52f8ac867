"""From what a trial reached at a rung to what it would reach at full resource, on the cautious side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def predict_final(table: Floats) -> Floats:
    """Predict the final losses of every trial that has reported any.

    From each stage to the next the losses of the trials that reached both change by some mean; a trial that
    ended early is taken to change as much, stage by stage. So what happens between two early rungs is learned
    from trials that were stopped at the second one as well. Those that went on were the best: of the others
    less is known than the fit says, and the standard deviation of the change (added up in squares over the
    stages) is added to a predicted loss. Of two trials at a rung the better one stays the better, and an
    objective that does not change, such as a cost, is predicted exactly.

    Args:
        table: Losses, lower is better, shape (n_trials, n_stages, n_objectives): rungs in increasing order,
            then the end; NaN where a trial did not come to.
    Returns:
        Shape (n_trials, n_objectives): the final losses of those that have them, else predicted ones; NaN
        for trials that have not reported anything.
    """
    n_trials, n_stages, n_objectives = table.shape
    has = ~np.isnan(table[:, :, 0])
    predicted = np.full((n_trials, n_objectives), np.nan)
    variance = np.zeros((n_trials, n_objectives))
    for stage in range(n_stages):
        rows = has[:, stage]
        predicted[rows] = table[rows, stage]
        variance[rows] = 0.0
        if stage + 1 < n_stages:
            both = rows & has[:, stage + 1]
            if both.any():
                change = table[both, stage + 1] - table[both, stage]
                predicted += change.mean(axis=0)
                variance += change.var(axis=0)
    return predicted + np.sqrt(variance)

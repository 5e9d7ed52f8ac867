"""Predicted final losses against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dirprune.tuning.samplers.prediction import predict_final

NAN = np.nan


def table(*rows: tuple[float, ...]) -> np.ndarray:
    """One objective, a row for each trial."""
    return np.array(rows)[:, :, None]


def test_stopped_trial_changes_as_much_as_the_others_did_and_a_standard_deviation_less_well():
    losses = table((0.5, 0.3), (0.6, 0.2), (0.9, NAN), (NAN, NAN))
    final = predict_final(losses)[:, 0]
    assert final[:2].tolist() == [0.3, 0.2]
    assert final[2] == pytest.approx(0.9 - 0.3 + 0.1)  # changes are -0.2 and -0.4
    assert np.isnan(final[3])


def test_trials_stopped_later_teach_what_happens_between_early_rungs():
    losses = table((0.9, 0.5, 0.4), (0.8, 0.4, NAN), (1.0, NAN, NAN))
    assert predict_final(losses)[2, 0] == pytest.approx(1.0 - 0.4 - 0.1)
    assert predict_final(losses)[1, 0] == pytest.approx(0.4 - 0.1)


def test_objective_that_does_not_change_is_predicted_exactly():
    losses = np.full((3, 2, 2), NAN)
    losses[0] = [[0.5, 7.0], [0.3, 7.0]]
    losses[1] = [[0.6, 3.0], [0.2, 3.0]]
    losses[2, 0] = [0.9, 5.0]
    assert predict_final(losses)[2, 1] == 5.0


def test_without_finished_trials_the_last_losses_stand():
    losses = table((0.5, NAN), (0.6, NAN))
    assert predict_final(losses)[:, 0].tolist() == [0.5, 0.6]


@given(
    arrays(float, (12, 3), elements=st.floats(-1, 1, width=16)),
    arrays(int, 12, elements=st.integers(1, 3)),
)
def test_of_two_trials_at_a_rung_the_better_stays_the_better(losses, n_stages):
    for row, n in enumerate(n_stages):
        losses[row, n:] = NAN
    final = predict_final(losses[:, :, None])[:, 0]
    for n in (1, 2, 3):
        rows = np.flatnonzero(n_stages == n)
        order = np.argsort(losses[rows, n - 1], kind="stable")
        assert (np.diff(final[rows][order]) >= -1e-12).all()

"""Taylor and Fisher against derivatives worked out by hand."""

from __future__ import annotations

import torch

from dirprune.importance.gradients import compute_switch_gradients
from tests.importance.cases import linear_case, make_context, score
from tests.networks_for_tests import Residual


def test_derivatives_are_those_of_single_examples() -> None:
    context = make_context(Residual, n_examples=6)
    inputs, targets = context.load(slice(None))
    together = compute_switch_gradients(context, inputs, targets)
    for place in range(len(inputs)):
        alone = compute_switch_gradients(context, inputs[place : place + 1], targets[place : place + 1])
        for name, values in alone.items():
            torch.testing.assert_close(values[0], together[name][place], rtol=1e-4, atol=1e-7)


def test_taylor_and_fisher_are_the_mean_size_and_half_the_mean_square_of_the_derivatives() -> None:
    # y = 2 x0 + 3 x1 with loss (y - t)^2: dL/ds_c = 2 (y - t) w_c x_c
    context = linear_case([2.0, 3.0], n_examples=2)
    context.calibration.inputs.copy_(torch.tensor([[1.0, -1.0], [2.0, 0.5]]))  # y = -1 and 5.5
    context.calibration.targets.copy_(torch.tensor([[-2.0], [5.0]]))  # y - t = 1 and 0.5
    # by hand: example 1: 2*1*(2, -3) = (4, -6); example 2: 2*0.5*(4, 1.5) = (4, 1.5)
    assert score("taylor", context)["0"].tolist() == [4.0, 3.75]
    assert score("fisher", context)["0"].tolist() == [8.0, (36 + 2.25) / 4]


def test_batch_size_does_not_change_scores() -> None:
    context = make_context(n_examples=50)
    for name in ("taylor", "fisher"):
        whole, parts = score(name, context), score(name, context, {"batch_size": 7})
        for group in whole:
            torch.testing.assert_close(whole[group], parts[group], rtol=1e-4, atol=1e-9)


def test_scores_do_not_need_gradients_to_be_enabled() -> None:
    context = linear_case([2.0, 3.0], n_examples=4)
    context.calibration.targets.add_(1.0)
    with torch.no_grad():
        scores = score("taylor", context)["0"]
    assert scores.min() > 0

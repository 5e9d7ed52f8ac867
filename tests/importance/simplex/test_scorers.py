"""The scorers of the simplex: their options, and the order that they find."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from dirprune.errors import ImportanceError
from dirprune.importance import create
from dirprune.tasks import make_task
from tests.importance.cases import evidence_case, linear_case, make_context, score
from tests.networks_for_tests import SmallLeNet

NAMES = ["dirichlet", "generalized-dirichlet", "logistic-normal"]
every_family = pytest.mark.parametrize("name", NAMES)


@every_family
@pytest.mark.parametrize("statistic", ["mean", "snr"])
def test_order_of_the_scores_is_how_much_each_removal_hurts(name: str, statistic: str) -> None:
    context = evidence_case([0.1, 0.9, 0.3, 0.02])
    scores = score(name, context, {"statistic": statistic, "steps": 200})["0"]
    n_told_apart = 4 if statistic == "mean" else 2  # the snr of what hardly matters is all about the same
    assert scores.argsort(descending=True).tolist()[:n_told_apart] == [1, 2, 0, 3][:n_told_apart]
    assert (scores > 0).all()
    assert (abs(float(scores.sum()) - 1) < 1e-9) is (statistic == "mean")


@every_family
def test_group_with_one_channel_scores_one_by_either_statistic(name: str) -> None:
    for statistic in ("mean", "snr"):
        scores = score(name, linear_case([2.0]), {"statistic": statistic, "steps": 3})["0"]
        assert scores.tolist() == pytest.approx([1.0])


@every_family
@pytest.mark.parametrize("statistic", ["mean", "snr"])
def test_a_network_of_one_group_has_one_simplex_either_way(name: str, statistic: str) -> None:
    context = linear_case([0.4, 1.1, 0.2])
    one, other = (
        score(name, context, {"simplex": simplex, "statistic": statistic, "steps": 5})["0"]
        for simplex in ("group", "network")
    )
    torch.testing.assert_close(one, other)


@every_family
def test_one_simplex_for_the_network_tells_groups_apart(name: str) -> None:
    context = make_context(SmallLeNet, n_examples=200)
    n_channels = context.grouping.n_channels
    groups, network = (score(name, context, {"steps": 40, "simplex": s}) for s in ("group", "network"))
    assert all(float(values.sum()) == pytest.approx(1) for values in groups.values())
    assert {group: len(values) for group, values in network.items()} == dict(n_channels)
    shares = {group: float(values.sum()) for group, values in network.items()}
    assert sum(shares.values()) == pytest.approx(1)
    even = {group: n / sum(n_channels.values()) for group, n in n_channels.items()}
    assert all(abs(shares[group] - even[group]) > 1e-4 for group in shares), (shares, even)


@every_family
def test_a_batch_larger_than_the_calibration_split_is_refused(name: str) -> None:
    with pytest.raises(
        ImportanceError, match="must be at most 128 with 64 calibration examples, got 1000000000"
    ):
        score(name, linear_case([2.0, 1.0]), {"batch_size": 10**9, "steps": 1})
    score(name, linear_case([2.0, 1.0], n_examples=200), {"batch_size": 200, "steps": 1})


def test_statistics_give_the_same_order_for_a_dirichlet() -> None:
    context = linear_case([0.4, 1.1, 0.2, 0.9, 0.7])
    mean, snr = (score("dirichlet", context, {"statistic": statistic})["0"] for statistic in ("mean", "snr"))
    assert mean.argsort().tolist() == snr.argsort().tolist()
    assert not torch.equal(mean, snr)


@every_family
def test_without_a_signal_in_the_loss_scores_stay_those_of_the_prior(name: str) -> None:
    constant = make_task(lambda outputs, targets: outputs.flatten() * 0 + 1, "mse")
    context = dataclasses.replace(linear_case([1, 2, 3]), task=constant)
    expected = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(score(name, context)["0"], expected, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dirichlet", {"estimator": "pont"}, "estimator must be 'integral' or 'point', got 'pont'"),
        ("dirichlet", {"statistic": "sdr"}, "statistic must be 'mean' or 'snr', got 'sdr'"),
        ("generalized-dirichlet", {"n_orders": 0}, "n_orders must be at least 1, got 0"),
        ("generalized-dirichlet", {"prior_concentration": 0}, "prior_concentration must be a number above 0"),
        ("logistic-normal", {"rank": -1}, "rank must be at least 0, got -1"),
        ("logistic-normal", {"n_samples": 0}, "n_samples must be at least 1, got 0"),
        ("dirichlet", {"simplex": "networks"}, "simplex must be 'group' or 'network', got 'networks'; did"),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImportanceError, match=message):
        create(name, options)

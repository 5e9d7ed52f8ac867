"""Scoring keeps to the memory that it is allowed, and gives the same scores with little of it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dirprune.architecture import Architecture
from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext, create, fresh_norm, select_channels
from dirprune.importance.coalitions import open_values
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.importance.footprint import measure_footprint
from dirprune.importance.simplex import laplace, logistic_normal
from dirprune.importance.simplex.laplace import compute_curvature
from dirprune.importance.simplex.logistic_normal import LogisticNormalPosterior
from tests.importance.cases import make_context, score
from tests.networks_for_tests import Residual, SmallLeNet

N_EXAMPLES = 400


class Noted(SmallLeNet):
    """Notes how many examples each pass takes; no tracer follows it."""

    sizes: ClassVar[list[int]] = []

    def forward(self, images: Tensor) -> Tensor:
        if float(images.sum()) == float("inf"):
            return images
        self.sizes.append(len(images))
        return super().forward(images)


@pytest.fixture
def context() -> ScoringContext:
    """Return a context of 400 examples and 1 MiB, which is not enough for all of them at once."""
    context = make_context(n_examples=N_EXAMPLES)
    network = Noted().eval().requires_grad_(False)
    network.load_state_dict(context.network.state_dict())
    return dataclasses.replace(context, network=network, memory_mb=1)


FITTED = ("dirichlet", "generalized-dirichlet", "logistic-normal")


@pytest.mark.parametrize("method", ["taylor", "fisher", *FITTED])
def test_derivatives_keep_to_the_memory_and_are_the_same(context: ScoringContext, method: str) -> None:
    options = {"batch_size": N_EXAMPLES} | ({"steps": 3} if method in FITTED else {})
    n_fitting = (1 << 20) // measure_footprint(context, is_differentiated=True)
    assert 2 < n_fitting < N_EXAMPLES
    Noted.sizes = []
    found = score(method, context, options)
    assert n_fitting // 2 <= max(Noted.sizes) <= n_fitting
    for group, scores in score(method, dataclasses.replace(context, memory_mb=64), options).items():
        torch.testing.assert_close(found[group], scores, rtol=1e-4, atol=1e-7)
    assert max(Noted.sizes) == N_EXAMPLES


class Largest(TorchDispatchMode):
    """Notes how many bytes the largest tensor takes that anything returns."""

    n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        self.n_bytes = max([self.n_bytes, *(tensor.untyped_storage().nbytes() for tensor in tensors)])
        return found


def test_moments_of_the_logistic_normal_take_little_and_do_not_depend_on_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    posterior = LogisticNormalPosterior({"a": 30, "b": 50}, prior_concentration=3.0)
    posterior.location.data += torch.arange(80) / 40
    with Largest() as largest:
        found = [posterior.mean(), posterior.variance(), posterior.covariance("b")]
    assert largest.n_bytes <= 2 * 8 * logistic_normal.N_NUMBERS_AT_ONCE
    monkeypatch.setattr(logistic_normal, "N_NUMBERS_AT_ONCE", 1 << 24)
    expected = [posterior.mean(), posterior.variance(), posterior.covariance("b")]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


def test_curvature_of_covariances_keeps_to_the_memory_and_is_the_same(
    context: ScoringContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laplace, "MAX_BATCH", N_EXAMPLES)
    n_fitting = (1 << 20) // measure_footprint(context, is_differentiated=True)
    Noted.sizes = []
    found = compute_curvature(context)
    assert n_fitting // 4 <= max(Noted.sizes) <= n_fitting < N_EXAMPLES
    for group, curvature in compute_curvature(dataclasses.replace(context, memory_mb=64)).items():
        torch.testing.assert_close(found[group], curvature, rtol=1e-4, atol=1e-6)
    assert max(Noted.sizes) == N_EXAMPLES


def test_cuts_by_curvature_keep_to_the_memory_and_are_the_same(
    context: ScoringContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh_norm, "N_FOR_STATISTICS", N_EXAMPLES)
    options = {"search": "curvature", "recalibrate": False}
    n_fitting = (1 << 20) // measure_footprint(context, is_differentiated=True)
    Noted.sizes = []
    architecture = Architecture.uniform(context.grouping, 0.5)
    kept = select_channels(create("greedy", options), context, architecture).kept
    assert n_fitting // 2 <= max(Noted.sizes) <= n_fitting
    roomy = dataclasses.replace(context, memory_mb=64)
    assert select_channels(create("greedy", options), roomy, architecture).kept == kept
    assert max(Noted.sizes) == N_EXAMPLES


def test_passes_of_a_network_that_cannot_be_traced_keep_to_the_memory(context: ScoringContext) -> None:
    coalitions = np.random.default_rng(0).random((3, 4)) < 0.5
    n_fitting = (1 << 20) // measure_footprint(context, is_differentiated=False)
    values = open_values(context, "conv1")
    assert isinstance(values, MaskedValues)
    Noted.sizes = []
    found = values.evaluate(coalitions)
    assert n_fitting // 4 <= max(Noted.sizes) <= n_fitting < N_EXAMPLES
    roomy = open_values(dataclasses.replace(context, memory_mb=64), "conv1").evaluate(coalitions)
    np.testing.assert_allclose(found, roomy, rtol=1e-6)
    assert max(Noted.sizes) == N_EXAMPLES


@pytest.fixture
def without_statistics() -> ScoringContext:
    """Return a context of a network whose batch norm takes those of the images at hand, and 1 MiB."""
    context = make_context(Residual, n_examples=N_EXAMPLES)
    for norm in (module for module in context.network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = norm.running_var = None
        norm.track_running_stats = False
    return dataclasses.replace(context, memory_mb=1)


@pytest.mark.parametrize("method", ["taylor", "fisher", "dirichlet", "magnitude"])
def test_batches_from_which_batch_norm_takes_statistics_stay_whole(
    without_statistics: ScoringContext, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"steps": 3} if method == "dirichlet" else {}
    assert (1 << 20) // measure_footprint(without_statistics, is_differentiated=True) < 128
    found = score(method, without_statistics, options)
    roomy = dataclasses.replace(without_statistics, memory_mb=64)
    for group, scores in score(method, roomy, options).items():
        assert torch.equal(found[group], scores)
    convolve = nn.Conv2d.forward

    def run_out_of_memory(self: nn.Conv2d, values: Tensor) -> Tensor:
        if len(values) > 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return convolve(self, values)

    monkeypatch.setattr(nn.Conv2d, "forward", run_out_of_memory)
    with pytest.raises(ImportanceError, match=r"memory for \d+ examples at once, from which batch norm"):
        score(method, without_statistics, options)


def test_derivatives_do_not_depend_on_the_batches_where_batch_norm_has_no_statistics(
    without_statistics: ScoringContext,
) -> None:
    expected = score("taylor", without_statistics)
    for group, scores in score("taylor", without_statistics, {"batch_size": 7}).items():
        assert torch.equal(scores, expected[group])

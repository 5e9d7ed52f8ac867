"""Cuts by curvature: what a look finds, what is cut, and which networks are searched in this way."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dirprune.architecture import Architecture
from dirprune.device import derivatives_off_device
from dirprune.errors import ImportanceError
from dirprune.importance import ScoreCache, ScoringContext, create, get_method, select_channels
from dirprune.importance.footprint import N_EXAMPLES
from dirprune.importance.greedy import shrinking
from dirprune.importance.greedy.search import is_exact
from dirprune.importance.greedy.shrinking import Shrinking, shrink
from dirprune.importance.parts import Shortage
from dirprune.networks import create_network
from dirprune.surgery import compact
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from tests.importance.cases import evidence_case, identity, linear_case, make_context, make_split
from tests.importance.greedy.networks import two_sides
from tests.networks_for_tests import Residual, SmallLeNet


def test_increase_is_exact_where_outputs_are_linear_in_the_channels() -> None:
    estimate = Shrinking(two_sides([3, 1], [0.5, 2]), True).look()
    assert estimate.costs() == pytest.approx([9, 1, 0.25, 4])
    estimate.remove(1)
    estimate.remove(3)
    assert estimate.increase() == pytest.approx(5)


def test_divergence_of_a_classifier_is_estimated_near_its_own_value() -> None:
    context = evidence_case([0.3, 0.2, -0.1], n_examples=4000)
    estimate = Shrinking(context, False).look()
    assert np.abs(estimate.gradient).max() < 1e-6
    inputs, _ = context.load(slice(0, 4000))
    with torch.no_grad():
        dense = context.network(inputs).log_softmax(1)
        for channel, cost in enumerate(estimate.costs()):
            masked = inputs.clone()
            masked[:, channel] = 0
            moved = context.network(masked).log_softmax(1)
            divergence = float((dense.exp() * (dense - moved)).sum(1).mean())
            assert cost == pytest.approx(divergence, rel=0.25)


def test_dense_network_has_no_slope_by_the_statistics_of_the_images_either() -> None:
    context = make_context(Residual)
    assert np.abs(Shrinking(context, True).look().gradient).max() < 1e-5


def test_outputs_of_a_network_that_is_sure_count_too() -> None:
    context = evidence_case([20.0, 10.0, 5.0])
    inputs, _ = context.load(slice(0, 500))
    with torch.no_grad():
        assert float(context.network(inputs).softmax(1).max(1).values.median()) > 0.999
    costs = Shrinking(context, False).look().costs()
    assert costs[0] > 2 * costs[1] > 4 * costs[2] > 0.1


@pytest.mark.parametrize("kind", [SmallLeNet, Residual])
def test_what_is_kept_is_the_network_that_is_left(kind: type[nn.Module]) -> None:
    context = make_context(kind)
    shrinking = Shrinking(context, True)
    for _ in range(2):
        estimate = shrinking.look()
        estimate.remove_cheapest(np.ones(len(context.grouping.groups), dtype=int))
        shrinking.cut(estimate.is_removed)
    inputs, _ = context.load(slice(0, 8))
    expected = compact(context.network, context.grouping, shrinking.kept, inputs)
    with torch.no_grad():
        torch.testing.assert_close(shrinking.context.network(inputs), expected(inputs))
    assert shrinking.context.grouping.n_channels == {n: len(c) for n, c in shrinking.kept.items()}
    assert shrinking.context.grouping.n_channels != context.grouping.n_channels


def test_later_looks_are_at_other_images() -> None:
    context = make_context(n_examples=1200)
    inputs = context.calibration.inputs.clone()
    inputs[:500] = 0  # two parts of 240 images show the same
    context = dataclasses.replace(context, calibration=make_split(inputs, context.calibration.targets))
    shrinking = Shrinking(context, False)
    assert np.ptp(shrinking.look().factors.std(axis=0)) < np.ptp(shrinking.look().factors.std(axis=0))


@pytest.mark.parametrize("n_rounds", [1, 3, 50])
def test_architecture_is_reached_in_any_number_of_rounds(n_rounds: int) -> None:
    context = make_context()
    architecture = Architecture.uniform(context.grouping, 0.5)
    told = []
    context = dataclasses.replace(context, progress=lambda what, done, total: told.append((done, total)))
    kept = shrink(context, architecture, n_rounds, True)
    assert {name: len(channels) for name, channels in kept.items()} == dict(architecture)
    assert kept == shrink(context, architecture, n_rounds, True)
    assert told[n_rounds - 1] == (n_rounds, n_rounds)


def test_interrupted_choice_goes_on_from_its_last_cut(tmp_path: Path) -> None:
    context = dataclasses.replace(make_context(Residual), workspace=tmp_path)
    architecture = Architecture.uniform(context.grouping, 0.3)
    method = create("greedy", {"search": "curvature", "rounds": 6})
    expected = select_channels(method, dataclasses.replace(context, workspace=None), architecture).kept
    told: list[int] = []

    def interrupt(what: str, done: int, total: int) -> None:
        told.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select_channels(method, dataclasses.replace(context, progress=interrupt), architecture)
    assert told == [1, 2]
    told.clear()
    going_on = dataclasses.replace(context, progress=lambda what, done, total: told.append(done))
    assert select_channels(method, going_on, architecture).kept == expected
    assert told == [3, 4, 5, 6]


@pytest.mark.parametrize("name", ["greedy", "greedy-path"])
@pytest.mark.parametrize("where", ["inputs", "targets"])
def test_a_regression_on_what_is_not_a_number_is_refused(name: str, where: str) -> None:
    context = linear_case([4.0, 3.0, 2.0, 1.0])
    getattr(context.calibration, where)[3, 0] = torch.nan
    with pytest.raises(ImportanceError, match="got nan; look for NaN in weights and calibration inputs"):
        select_channels(create(name, {"search": "curvature"}), context, {"0": 2})


@pytest.mark.parametrize("name", ["greedy", "greedy-path"])
def test_out_of_memory_means_fewer_images_at_once_and_is_said_once(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = make_context(Residual)
    assert len(context.calibration) > 64
    architecture = Architecture.uniform(context.grouping, 0.5)
    method = create(name, {"search": "curvature", "recalibrate": False})
    expected = select_channels(method, context, architecture).kept
    sizes = run_out_of_memory_(monkeypatch, lambda values: len(values) > 64)
    assert select_channels(method, context, architecture).kept == expected
    assert sum("smaller batches" in record.message for record in caplog.records) == 1
    assert 32 < max(sizes[len(sizes) // 2 :]) <= 64
    run_out_of_memory_(monkeypatch, lambda values: True)
    with pytest.raises(ImportanceError, match="curvature: expected memory for at least one example"):
        Shrinking(context, False)


@pytest.mark.parametrize("name", ["greedy", "greedy-path"])
def test_images_of_statistics_stay_together_while_derivatives_are_kept_in_other_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = make_context(Residual)
    architecture = Architecture.uniform(context.grouping, 0.5)
    method = create(name, {"search": "curvature"})
    expected = select_channels(method, context, architecture).scores
    is_elsewhere = [False]

    @contextlib.contextmanager
    def noted(n_bytes: int | None) -> Iterator[None]:
        is_elsewhere[0] = True
        with derivatives_off_device(n_bytes):
            yield
        is_elsewhere[0] = False

    monkeypatch.setattr(shrinking, "_has_own_memory", lambda device: True)
    monkeypatch.setattr(shrinking, "derivatives_off_device", noted)
    n_all = len(context.calibration)
    sizes = run_out_of_memory_(
        monkeypatch, lambda v: torch.is_grad_enabled() and len(v) == n_all and not is_elsewhere[0]
    )
    found = select_channels(method, context, architecture, ScoreCache(tmp_path)).scores
    assert all(torch.equal(found[group], scores) for group, scores in expected.items())
    assert set(sizes) == {N_EXAMPLES, n_all}  # the former to learn what one of them takes
    assert sum("kept in the machine's own memory" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(("has_own_memory", "n_looks"), [(True, 2), (False, 1)])
def test_derivatives_stay_where_the_machine_has_no_room_for_them_or_computes_itself(
    has_own_memory: bool, n_looks: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looked = Shrinking(make_context(Residual), True)
    if has_own_memory:
        monkeypatch.setattr(shrinking, "_has_own_memory", lambda device: True)
    monkeypatch.setattr(shrinking, "read_free_memory", lambda: 1000)
    sizes = run_out_of_memory_(monkeypatch, lambda v: torch.is_grad_enabled() and len(sizes) == 1)
    with pytest.raises(ImportanceError, match="curvature: expected memory for 96 examples at once, from"):
        looked.look()
    assert len(sizes) == n_looks
    assert sum("kept in the machine's own memory" in r.message for r in caplog.records) == n_looks - 1


@pytest.mark.parametrize("name", ["greedy", "greedy-path"])
def test_what_fewer_images_would_say_is_not_kept_as_what_all_of_them_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(Residual)
    architecture = Architecture.uniform(context.grouping, 0.5)
    method = create(name, {"search": "curvature"})
    expected = select_channels(method, context, architecture).kept
    refused = r"curvature: expected memory for 96 examples .* try recalibrate=false, or n_examples below 96$"
    with monkeypatch.context() as tight:
        run_out_of_memory_(tight, lambda values: len(values) > 64)
        with pytest.raises(ImportanceError, match=refused):
            select_channels(method, context, architecture, ScoreCache(tmp_path))
        fewer = create(name, {"search": "curvature", "n_examples": 64})
        select_channels(fewer, context, architecture, ScoreCache(tmp_path))
    found = select_channels(method, context, architecture, ScoreCache(tmp_path))
    assert not found.was_cached
    assert found.kept == expected


@pytest.mark.parametrize("is_recalibrated", [True, False])
def test_too_little_memory_for_a_network_without_stored_statistics_says_what_helps(
    is_recalibrated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(Residual, n_examples=200)
    for norm in (module for module in context.network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = norm.running_var = None
        norm.track_running_stats = False
    Shrinking(context, is_recalibrated).look()
    run_out_of_memory_(monkeypatch, lambda values: len(values) > 120)
    with pytest.raises(
        ImportanceError, match=r"for 200 examples at once, .* store statistics in the network$"
    ):
        Shrinking(context, is_recalibrated)


def run_out_of_memory_(monkeypatch: pytest.MonkeyPatch, is_too_much: Callable[[Tensor], bool]) -> list[int]:
    """Let convolutions run out of memory; return a list that takes the sizes of what is differentiated."""
    convolve = nn.Conv2d.forward
    sizes: list[int] = []

    def run(self: nn.Conv2d, values: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(values))
        if is_too_much(values):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return convolve(self, values)

    monkeypatch.setattr(nn.Conv2d, "forward", run)
    return sizes


@pytest.mark.parametrize("case", ["classifier", "regression"])
def test_fewer_images_at_once_find_the_same(case: str) -> None:
    context = make_context(Residual, n_examples=301)
    if case == "regression":
        with torch.no_grad():
            outputs = context.network(context.calibration.inputs)
        split = make_split(context.calibration.inputs, outputs + 1)
        context = dataclasses.replace(context, calibration=split, task=make_task("mse", "mse"))
    roomy, small = Shrinking(context, False), Shrinking(context, False)
    small._shortage = Shortage(3)
    for _ in range(2):
        expected, found = roomy.look(), small.look()
        assert small.loss == pytest.approx(roomy.loss, rel=1e-5)
        np.testing.assert_allclose(found.costs(), expected.costs(), rtol=1e-4)
        for network, estimate in ((roomy, expected), (small, found)):
            estimate.remove_cheapest(np.ones(len(context.grouping.groups), dtype=int))
            network.cut(estimate.is_removed)
        assert small.kept == roomy.kept


def test_how_far_the_dense_outputs_are_is_told_where_they_take_several_parts() -> None:
    told: list[tuple[str, int, int]] = []
    context = make_context(n_examples=600)
    Shrinking(dataclasses.replace(context, progress=lambda *each: told.append(each)), False)
    assert [n_done for _, n_done, n_total in told if n_total == 600][-1] == 600
    assert len(told) > 1


def test_small_networks_are_searched_exactly_and_deep_ones_by_curvature() -> None:
    found = {}
    for name, shape in (("lenet5", (1, 28, 28)), ("resnet20", (3, 32, 32))):
        network, inputs = create_network(name, seed=0).eval(), torch.zeros(1000, *shape)
        split = make_split(inputs, torch.zeros(1000, dtype=torch.long))
        grouping = find_groups(network, inputs[:2])
        context = ScoringContext(network, grouping, split, identity, make_context().task)
        found[name] = is_exact(context, "auto", "loss")
        assert is_exact(context, "auto", "accuracy")
        assert is_exact(context, "exact", "loss")
        assert not is_exact(context, "curvature", "loss")
    assert found == {"lenet5": True, "resnet20": False}


@pytest.mark.parametrize("name", ["greedy", "greedy-path"])
def test_methods_that_look_at_the_curvature_say_that_they_differentiate(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_calls = 0
    differentiate = torch.autograd.grad

    def count(*arguments: object, **options: object) -> object:
        nonlocal n_calls
        n_calls += 1
        return differentiate(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", count)
    context = make_context(SmallLeNet)
    smallest = dict.fromkeys(context.grouping.n_channels, 1)
    select_channels(create(name, {"search": "curvature"}), context, smallest)
    assert n_calls > 0
    assert get_method(name).needs_gradients

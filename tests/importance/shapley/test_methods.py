"""The registered Shapley methods: options, errors, and values that are kept and never computed twice."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext, create
from dirprune.importance.coalitions import open_values
from dirprune.importance.shapley import ShapleyScorer, compute_exact
from tests.importance.cases import linear_case, make_context, score

ROOT = Path(__file__).parents[3]
SAMPLED = ("shapley", "shapley-permutation", "shapley-kernel", "shapley-ols")
EXACT_WHEN_EVERYTHING = ("shapley", "shapley-permutation", "shapley-kernel", "shapley-exact", "shapley-shap")

PROGRAM = """
import dataclasses, os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from dirprune.importance import create
from tests.importance.cases import linear_case
n_before_death = int(sys.argv[3])
n_done = 0
def progress(what, done, total):
    global n_done
    n_done += 1
    if n_done == n_before_death:
        os._exit(9)
context = dataclasses.replace(linear_case(WEIGHTS), workspace=Path(sys.argv[1]), progress=progress)
create(sys.argv[4], {"evaluations": sys.argv[2]}).score(context)
"""
WEIGHTS = [2.0, 1.0, -0.5, 0.1, 3.0, 0.7, 1.5, 0.2, 0.9, 1.1]


def estimate(name: str, context: ScoringContext, **options: object) -> dict[str, object]:
    method = create(name, options)
    assert isinstance(method, ShapleyScorer)
    return method.estimate(context)  # type: ignore[return-value]


def count_stored(workspace: Path) -> int:
    values = open_values(dataclasses.replace(linear_case(WEIGHTS), workspace=workspace), "0")
    values.evaluate(np.zeros((1, len(WEIGHTS)), dtype=bool))
    return len(values.known)  # type: ignore[attr-defined]


def run_elsewhere(workspace: Path, name: str, evaluations: int, n_before_death: int = 0) -> int:
    program = PROGRAM.replace("WEIGHTS", repr(WEIGHTS))
    arguments = [sys.executable, "-c", program, str(workspace), str(evaluations), str(n_before_death), name]
    return subprocess.run(arguments, cwd=ROOT, timeout=120, check=False).returncode


@pytest.mark.parametrize("name", EXACT_WHEN_EVERYTHING)
def test_methods_equal_the_exact_values_of_every_group_when_they_evaluate_everything(name: str) -> None:
    context = make_context(n_examples=32)
    options = {} if name == "shapley-exact" else {"evaluations": 256 + 2}
    scores = score(name, context, options)
    for group in context.grouping.groups:
        exact = compute_exact(open_values(context, group.name).evaluate, group.n_channels).values
        np.testing.assert_allclose(scores[group.name].numpy(), exact, atol=1e-7)


def test_linear_network_has_the_values_worked_out_by_hand() -> None:
    # The loss of inputs x with channels S present is mean (sum over absent c of w_c x_c)^2.
    context = linear_case([2.0, 1.0, 0.5])
    inputs = context.calibration.inputs.double()
    products = (inputs.T @ inputs / len(inputs)) * torch.outer(*[torch.tensor([2.0, 1.0, 0.5]).double()] * 2)
    np.testing.assert_allclose(score("shapley", context)["0"].numpy(), products.sum(1), rtol=1e-4)
    np.testing.assert_allclose(score("shapley-exact", context)["0"].numpy(), products.sum(1), rtol=1e-4)
    np.testing.assert_allclose(score("shapley-partial", context)["0"].numpy(), products.sum(1), rtol=1e-4)


def test_estimates_come_with_intervals_and_counts() -> None:
    found = estimate("shapley", make_context(n_examples=32), evaluations=40)
    assert [each.n_evaluations for each in found.values()] == [16, 40, 40]  # type: ignore[attr-defined]
    assert all(each.half_widths is not None for each in found.values())  # type: ignore[attr-defined]


def test_accuracy_can_be_the_value() -> None:
    context = make_context(n_examples=32)
    exact = compute_exact(open_values(context, "conv1", value="accuracy").evaluate, 4).values
    scores = score("shapley-exact", context, {"value": "accuracy"})["conv1"]
    np.testing.assert_allclose(scores.numpy(), exact, atol=1e-12)


@pytest.mark.parametrize("name", SAMPLED)
def test_a_larger_budget_evaluates_only_what_is_new(name: str, tmp_path: Path) -> None:
    context = dataclasses.replace(linear_case(WEIGHTS), workspace=tmp_path)
    few = estimate(name, context, evaluations=30)["0"].n_evaluations  # type: ignore[attr-defined]
    assert count_stored(tmp_path) == few
    many = estimate(name, context, evaluations=100)["0"].n_evaluations  # type: ignore[attr-defined]
    assert count_stored(tmp_path) == many
    if name != "shapley-permutation":  # it takes whole pairs of orders only
        assert (few, many) == (30, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLED)
def test_another_process_evaluates_only_what_is_new_also_after_a_kill(name: str, tmp_path: Path) -> None:
    few, many = (
        estimate(name, linear_case(WEIGHTS), evaluations=n)["0"].n_evaluations  # type: ignore[attr-defined]
        for n in (30, 100)
    )
    assert run_elsewhere(tmp_path, name, 30) == 0
    assert count_stored(tmp_path) == few
    assert run_elsewhere(tmp_path, name, 100, n_before_death=2) == 9
    n_when_killed = count_stored(tmp_path)
    assert few < n_when_killed < many
    context = dataclasses.replace(linear_case(WEIGHTS), workspace=tmp_path)
    scores = create(name, {"evaluations": 100}).score(context)["0"]  # type: ignore[attr-defined]
    assert count_stored(tmp_path) == many
    fresh = create(name, {"evaluations": 100}).score(linear_case(WEIGHTS))["0"]  # type: ignore[attr-defined]
    assert torch.equal(scores, fresh)


def test_auto_settles_an_easy_cut_early(tmp_path: Path) -> None:
    context = linear_case([3.0] * 4 + [0.1] * 4)
    found = estimate("shapley", context, evaluations="auto", cut=0.5)["0"]
    assert found.n_evaluations < 256  # type: ignore[attr-defined]
    assert found.values[:4].min() > found.values[4:].max()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shapley", {"evaluations": "atuo"}, r"a whole number, 'default' or 'auto', got 'atuo'"),
        ("shapley-ols", {"evaluations": "auto"}, r"a whole number, 'default', got 'auto'"),
        ("shapley", {"cut": 50}, r"cut must be a keep ratio in \(0, 1\), got 50"),
        ("shapley", {"value": "lost"}, r"value must be 'loss' or 'accuracy', got 'lost'.*'loss'"),
        (
            "shapley-partial",
            {"k": 0},
            r"k must be at least 1 and at most the number of channels, got 0; try k=1",
        ),
        ("shapley-partial", {"adding": "maybe"}, r"adding must be 'both', 'yes' or 'no', got 'maybe'"),
        ("shapley-shap", {"explainer": "tree"}, r"explainer must be 'kernel' or 'permutation', got 'tree'"),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ImportanceError, match=message):
        create(name, options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shapley", {"evaluations": 9}, r"at least 10 for a group of 8 channels, got 9"),
        ("shapley", {"evaluations": 0}, r"at least 6 for a group of 4 channels, got 0"),
        ("shapley-kernel", {"evaluations": -1}, r"at least 8 for a group of 4 channels, got -1"),
        ("shapley-ols", {"evaluations": 0}, r"at least 5 for a group of 4 channels, got 0"),
        ("shapley-partial", {"k": 5}, r"k must be in 1 \.\. 4 for a group of 4 channels, got 5"),
    ],
)
def test_options_that_do_not_fit_a_group_are_refused(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ImportanceError, match=message):
        score(name, make_context(n_examples=8), options)


@pytest.mark.parametrize("evaluations", [0, 2_000_000])
@pytest.mark.parametrize("name", [*SAMPLED, "shapley-shap"])
def test_what_a_refused_budget_says_to_try_is_what_the_method_accepts(name: str, evaluations: int) -> None:
    with pytest.raises(ImportanceError, match=r"0: evaluations must be at .*; try evaluations=") as refused:
        score(name, linear_case(WEIGHTS), {"evaluations": evaluations})
    accepted = set()
    for word in ("default", "auto"):
        with contextlib.suppress(ImportanceError):
            create(name, {"evaluations": word})
            accepted.add(word)
    assert set(re.findall(r"default|auto", str(refused.value))) == accepted


def test_without_shap_the_method_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportanceError, match=r"needs the package shap.*try method shapley-kernel"):
        score("shapley-shap", linear_case([1.0, 2.0]))

"""What long scoring tells of its progress: it only grows, and its total is that of the whole work."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dirprune.importance.shapley import exact, partial
from tests.importance.cases import make_context, score


@pytest.mark.parametrize("has_workspace", [True, False])
@pytest.mark.parametrize(
    ("name", "options", "totals"),
    [
        ("leave-one-out", {}, {"conv1": 5, "conv2": 7, "linear1": 9}),
        ("shapley-exact", {}, {"conv1": 16, "conv2": 64, "linear1": 256}),
        ("shapley-partial", {"k": 2}, {"conv1": 16, "conv2": 44, "linear1": 74}),
        ("taylor", {"batch_size": 32}, {"gradients": 96}),
    ],
)
def test_progress_of_each_piece_of_work_grows_to_all_of_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    options: dict[str, int],
    totals: dict[str, int],
    has_workspace: bool,
) -> None:
    for method in (exact, partial):
        monkeypatch.setattr(method, "BLOCK", 32)
    told: dict[str, list[tuple[int, int]]] = {}

    def tell(what: str, n_done: int, n_total: int) -> None:
        told.setdefault(what, []).append((n_done, n_total))

    workspace = tmp_path if has_workspace else None
    score(name, dataclasses.replace(make_context(), workspace=workspace, progress=tell), options)
    assert {what: states[-1] for what, states in told.items()} == {w: (n, n) for w, n in totals.items()}
    for what, states in told.items():
        assert states == sorted(states)
        assert len(states) > 1
        assert {n_total for _, n_total in states} == {totals[what]}

"""What is known before the first trial is asked of a worker only where something is left to compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dirprune.records.folder import StudyFolder
from dirprune.study.place import here
from dirprune.study.space import SearchSpace
from dirprune.tuning import preparation
from dirprune.tuning.errands import Errands
from dirprune.tuning.options import RunOptions
from dirprune.tuning.preparation import Prepared, prepare
from dirprune.tuning.subject import find_subject
from tests.integration.toy_study import absolute_error, spec

SPACE = SearchSpace(methods={"magnitude": {}, "taylor": {}}, architectures="ranked", warm_starts=0)


class MovingError(nn.Module):
    """A loss with a buffer that moves in use."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * outputs.detach().mean(0)
        return absolute_error(outputs, targets)


def note_errands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the functions that workers are asked for from now on; they run here."""
    asked: list[str] = []

    class Elsewhere(Errands):
        is_elsewhere = True

        def __call__(self, function: Callable[..., Any], *given: Any, **heard: Any) -> Any:
            asked.append(function.__name__)
            return here(function, *given, **heard)

    monkeypatch.setattr(preparation, "Errands", Elsewhere)
    return asked


@pytest.mark.parametrize("has_storage", [False, True])
def test_no_worker_is_asked_for_scores_that_are_kept(
    has_storage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = note_errands(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "worker"))
    ranked = spec.changed(space=SPACE, dense_epochs=1)
    storage = str(tmp_path / "storage") if has_storage else None
    options = RunOptions(output=tmp_path, storage=storage)

    def run() -> Prepared:
        subject = find_subject(ranked, options, None, print)
        return prepare(subject.spec, options, StudyFolder(tmp_path / "toy"), subject, print, None, None)

    first = run()
    assert "find_ranking" in asked
    asked.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "driver"))
    second = run()
    assert asked == ["_judge"]  # the study has not begun, so that its metrics are not known
    assert second.ranking.typical() == first.ranking.typical()  # type: ignore[union-attr]


def test_a_loss_that_moves_in_use_is_what_it_was_when_it_was_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, options = note_errands(monkeypatch), RunOptions(output=tmp_path)

    def run() -> Prepared:
        ranked = spec.changed(space=SPACE, dense_epochs=1, loss=MovingError())  # as the file makes it
        subject = find_subject(ranked, options, None, print)
        return prepare(subject.spec, options, StudyFolder(tmp_path / "toy"), subject, print, None, None)

    first = run()
    assert first.subject.spec.loss.mean.abs().sum() > 0  # type: ignore[union-attr]
    assert asked == ["_train", "_judge", "find_ranking"]
    asked.clear()
    second = run()
    assert asked == ["_judge"]
    assert second.description == first.description

"""What is known before the first trial is asked of a worker only where something is left to compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.study.place import here
from dirprune.study.space import SearchSpace
from dirprune.tuning import preparation
from dirprune.tuning.errands import Errands
from dirprune.tuning.options import RunOptions
from dirprune.tuning.preparation import Prepared, prepare
from dirprune.tuning.subject import find_subject
from tests.integration.toy_study import spec

SPACE = SearchSpace(methods={"magnitude": {}, "taylor": {}}, architectures="ranked", warm_starts=0)


@pytest.mark.parametrize("has_storage", [False, True])
def test_no_worker_is_asked_for_scores_that_are_kept(
    has_storage: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Elsewhere(Errands):
        is_elsewhere = True

        def __call__(self, function: Callable[..., Any], *given: Any, **heard: Any) -> Any:
            asked.append(function.__name__)
            return here(function, *given, **heard)

    monkeypatch.setattr(preparation, "Errands", Elsewhere)
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

"""The study's folder: naming its files touches nothing."""

from __future__ import annotations

from pathlib import Path

from dirprune.records.folder import StudyFolder


def test_naming_files_creates_nothing(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "output" / "lenet")
    assert folder.model_dir(3) == tmp_path / "output" / "lenet" / "models" / "3"
    assert folder.events(3) == tmp_path / "output" / "lenet" / "events" / "3.jsonl"
    assert folder.output == tmp_path / "output"
    assert list(tmp_path.iterdir()) == []

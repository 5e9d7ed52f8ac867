"""The study's folder: names, and an id of its own."""

from __future__ import annotations

from pathlib import Path

from dirprune.records.folder import StudyFolder


def test_naming_files_creates_nothing(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "output" / "lenet")
    assert folder.model_dir(3) == tmp_path / "output" / "lenet" / "models" / "3"
    assert folder.events(3) == tmp_path / "output" / "lenet" / "events" / "3.jsonl"
    assert folder.output == tmp_path / "output"
    assert list(tmp_path.iterdir()) == []


def test_id_stays_and_namesakes_differ(tmp_path: Path) -> None:
    here, there = StudyFolder(tmp_path / "a" / "lenet"), StudyFolder(tmp_path / "b" / "lenet")
    assert here.identify_() == StudyFolder(here.root).identify_()
    assert here.identify_() != there.identify_()
    assert len(here.identify_()) == 32

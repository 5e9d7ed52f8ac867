"""`dirprune export`: a network of a study as a file for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from dirprune.cli.options import check_can_write
from dirprune.errors import ConfigurationError
from dirprune.records.export import export_model
from dirprune.records.folder import StudyFolder
from dirprune.records.front import MEMBERS, find_member, mark_front, sort_front
from dirprune.study.objectives import Objective
from dirprune.tuning import storage


def export(
    study: Path, trial: str, kind: str, output: Path | None, tolerance: float, storage_url: str
) -> None:
    """Write a network of the study in folder STUDY in a format that other programs read."""
    folder = StudyFolder(study)
    number = _find_trial(folder, trial, storage_url)
    default = folder.root / "exports" / (str(number) if kind == "safetensors" else f"{number}.{kind}")
    target = output or default
    check_can_write(target, is_folder=kind == "safetensors")
    difference = export_model(folder.model_dir(number), target, kind, tolerance)
    click.echo(f"trial {number}: largest difference of outputs from the network's own {difference:.2g}")
    click.echo(f"{'folder' if kind == 'safetensors' else 'file'}: {target}")


def _find_trial(folder: StudyFolder, trial: str, storage_url: str) -> int:
    """Return the number of a trial that has a network, from what was written on the command line."""
    description = storage.read_study_json(folder)["description"]
    objectives = [Objective(metric, direction) for metric, direction in description["objectives"]]
    front = sort_front(mark_front(storage.read_records(folder, storage_url), objectives))
    if trial in MEMBERS and front:
        return find_member(front, objectives, trial).number
    if trial.isascii() and trial.isdecimal() and folder.model_dir(int(trial)).is_dir():
        return int(trial)
    known = ", ".join(str(record.number) for record in front) or "none"
    raise ConfigurationError(
        f"expected the number of a trial with a network, or {', '.join(MEMBERS)}, got {trial!r}; "
        f"on the front: {known}"
    )

"""`dirprune export`: a network of a study as a file for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dirprune.cli.options import check_can_write
from dirprune.cli.output_files import check_outside_studies
from dirprune.cli.own_network import ask_for_network, load_own_network
from dirprune.errors import ConfigurationError, NotGivenError
from dirprune.records.export import export_model
from dirprune.records.finalists import find_deployed, read_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.front import MEMBERS, find_member, mark_front, sort_front
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudySummary
from dirprune.tuning import storage


def export(
    study: Path,
    trial: str | None,
    finalist: str | None,
    kind: str,
    output: Path | None,
    tolerance: float,
    network: str | None,
    storage_url: str,
) -> None:
    """Write a network of the study in folder STUDY in a format that other programs read."""
    folder = StudyFolder(study)
    payload = storage.read_study_json(folder)
    networks = _Networks(storage.make_summary(folder, payload, n_trials=0, resumed=True), storage_url)
    if trial is not None and finalist is None:
        number = networks.find_trial(trial)
        title, name, model = f"trial {number}", str(number), folder.model_dir(number)
    elif finalist is not None and trial is None:
        number, seed = networks.find_finalist(finalist)
        title, name = f"finalist {number}, seed {seed}", f"finalist-{number}"
        model = folder.finalist(number, seed).model_dir(number)
    else:
        got = "neither" if trial is None else "both"
        raise ConfigurationError(f"expected --trial N or --finalist N, got {got}; {networks.describe()}")
    file_name = name if kind == "safetensors" else f"{name}.{kind}"
    target = output or folder.exports_dir / file_name
    is_folder = kind == "safetensors"
    check_can_write(target, is_folder=is_folder)
    written = target / file_name if is_folder else target  # a folder must not be the study's own either
    if folder.exports_dir.resolve() not in (written.parent.resolve() / written.name).parents:
        check_outside_studies("--output", written, file_name)
    described = payload["description"].get("network", {})
    own = None if network is None else load_own_network(network, described)
    try:
        difference = export_model(model, target, kind, tolerance, own)
    except NotGivenError as error:
        raise ask_for_network(payload) from error
    click.echo(f"{title}: largest difference of outputs from the network's own {difference:.2g}")
    click.echo(f"{'folder' if kind == 'safetensors' else 'file'}: {target}")


class _Networks:
    """A study's networks by what is written on the command line.

    A number is looked up in the study's folder alone; the storage of its trials is read for names, and to
    say which there are.
    """

    def __init__(self, summary: StudySummary, storage_url: str) -> None:
        self.folder, self.objectives, self.floor = summary.folder, summary.objectives, summary.floor
        self.storage_url = storage_url

    def find_trial(self, text: str) -> int:
        """Return the number of a trial that has a network."""
        if _is_number(text) and self.folder.model_dir(int(text)).is_dir():
            return int(text)
        front, _ = self.read_fronts()
        if text in MEMBERS and front:
            return find_member(front, self.objectives, text).number
        raise ConfigurationError(
            f"expected the number of a trial with a network, or {', '.join(MEMBERS)}, got {text!r}; "
            f"{self.describe()}"
        )

    def find_finalist(self, text: str) -> tuple[int, int]:
        """Return a finalist's number and the seed whose network is the one to deploy."""
        number = int(text) if _is_number(text) else None
        if text in MEMBERS:
            final_front = [record for record in self.read_fronts()[1] if record.is_front]
            number = find_member(final_front, self.objectives, text).number if final_front else None
        seed = None if number is None else find_deployed(self.folder, number, self.objectives)
        if number is None or seed is None:
            raise ConfigurationError(
                f"expected the number of a finalist, or of the final front {', '.join(MEMBERS)}, "
                f"got {text!r}; {self.describe()}"
            )
        return number, seed

    def describe(self) -> str:
        """Return which networks there are, in words."""
        front, finalists = self.read_fronts()
        return f"on the front: {_list_numbers(front)}; finalists: {_list_numbers(finalists)}"

    def read_fronts(self) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return the trials on the front, and all finalists with their means, each by macs."""
        records = mark_front(storage.read_records(self.folder, self.storage_url), self.objectives)
        finalists = read_finalists(self.folder, records, self.objectives, self.floor)
        return sort_front(records), [finalist.record for finalist in finalists]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _list_numbers(records: Sequence[TrialRecord]) -> str:
    return ", ".join(str(record.number) for record in records) or "none"

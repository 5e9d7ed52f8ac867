"""What of a study's folder lies in a storage that its machines share, and how it comes there and back.

Each machine has files of its own where `StudyFolder` says; those of a study with a storage are sent there
when they are whole, and fetched from there by whoever goes on with them. The study's own machine brings home
what its trials say and make. Without a storage the folder itself is shared, and nothing here does anything.

Storages cannot append: each attempt at a trial has an object of events of its own,
`events/<trial>/<place>-<attempt>.jsonl`, and an attempt's place is behind those that had begun before it.
Joined by place they are what the one file would be, but for late lines of older attempts, which come before
the start that refuses them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dirprune.files import write_atomically
from dirprune.records.finalists import Finalist
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.remote import RemoteFolder
from dirprune.study.observer import StudyObserver


def send(folder: StudyFolder, path: Path) -> None:
    """Send a file of a study, or all files of a folder; what says that a model is whole goes last."""
    if folder.remote is not None:
        files = [path] if path.is_file() else sorted(path.rglob("*"), key=lambda file: file.suffix == ".json")
        for file in files:
            if file.is_file():
                folder.remote.write(_name(folder, file), file.read_bytes())


def fetch(folder: StudyFolder, path: Path) -> None:
    """Fetch a file of a study, or all files of a folder, where the storage has them."""
    if folder.remote is not None:
        name = _name(folder, path)
        for found in folder.remote.list(name) or [name]:
            content = folder.remote.read(found)
            if content is not None:
                _write(folder.root / found, content)


def locate(folder: StudyFolder, path: Path) -> str:
    """Return where a file of a study lies for all of its machines."""
    return str(path) if folder.remote is None else folder.remote.below(_name(folder, path)).uri


def remove(folder: StudyFolder, path: Path) -> None:
    """Remove a folder of a study here and in the storage."""
    shutil.rmtree(path, ignore_errors=True)
    if folder.remote is not None:
        folder.remote.remove(_name(folder, path))


def send_events(folder: StudyFolder, trial: int, attempt: str) -> None:
    """Send what one attempt has said so far, and whatever else was said in its name."""
    if folder.remote is not None:
        lines = folder.events(trial).read_bytes().split(b"\n")
        own = [line for line in lines if _attempt(line) == attempt]
        names = folder.remote.list(f"events/{trial}")
        new = f"events/{trial}/{len(names):06d}-{attempt}.jsonl"
        name = next((name for name in names if name.endswith(f"-{attempt}.jsonl")), new)
        folder.remote.write(name, b"".join(line + b"\n" for line in own))


def fetch_events(folder: StudyFolder, trial: int) -> None:
    """Bring a trial's events file up to date with what all its attempts have said."""
    if folder.remote is not None:
        names = folder.remote.list(f"events/{trial}")
        parts = [folder.remote.read(name) or b"" for name in names]
        if parts:
            _write(folder.events(trial), b"".join(parts))


class ResultsSender(StudyObserver):
    """Send a study's tables, pictures and accounts to the storage at the end of its search and finalists.

    Args:
        folder: The study's, with a storage.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

    def study_ended(self, records: Sequence[TrialRecord], interrupted: bool) -> None:
        """Send what there is."""
        folder = self.folder
        for path in (folder.study_json, folder.journal, folder.ending_json, *folder.views):
            if path.exists():
                send(folder, path)

    def finalists_ended(self, finalists: Sequence[Finalist], interrupted: bool) -> None:
        """Send it again, with what the finalists have changed."""
        self.study_ended([], interrupted)


def open_folder(root: Path, uri: str) -> StudyFolder:
    """Return the folder of a study whose own part of a storage has this address; empty: it has none."""
    return StudyFolder(root, RemoteFolder(uri) if uri else None)


def _name(folder: StudyFolder, path: Path) -> str:
    return path.relative_to(folder.root).as_posix()


def _write(path: Path, content: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def _attempt(line: bytes) -> str | None:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(line)["attempt"])
    return None

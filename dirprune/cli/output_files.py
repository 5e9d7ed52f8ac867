"""Files that a command writes where it was told to: their endings, and what they must not replace."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dirprune.cli.options import check_can_write
from dirprune.errors import ConfigurationError
from dirprune.records.folder import StudyFolder


def check_output_files(
    files: Mapping[str, Path | None], endings: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Check files before anything is computed for them, without creating any.

    None may lie inside of a study's folder, where it could replace what the study is.

    Args:
        files: By the option that names each; None where it was not given.
        endings: What the file of an option may end in, the usual one first; one without may end in anything.
    Raises:
        ConfigurationError: If one cannot be written, is a study's or ends in something else, or two are the
            same file.
    """
    options: dict[Path, str] = {}  # by what each would replace
    for option, path in files.items():
        if path is None:
            continue
        check_can_write(path, is_folder=False, option=option)
        allowed = (endings or {}).get(option, ())
        fitting = _fit_ending(option, path, allowed)
        check_outside_studies(option, path, fitting.name)
        if fitting != path:
            raise ConfigurationError(
                f"expected {option} to end in {' or '.join(allowed)}, got {path}; try {fitting}"
            )
        other = options.setdefault(_locate(path), option)
        if other != option:
            raise ConfigurationError(
                f"expected a file of its own for {option}, got {path} for {other} too; try another {option}"
            )


def check_outside_studies(option: str, path: Path, name: str) -> None:
    """Return when a file would lie outside of every study's folder.

    Args:
        option: Of the command line, that says where.
        path: Of the file.
        name: Of one beside the study to try.
    Raises:
        ConfigurationError: If not.
    """
    if studies := [above for above in _locate(path).parents if StudyFolder(above).study_json.exists()]:
        study = studies[-1]
        raise ConfigurationError(
            f"expected {option} outside of every study's folder, got {path}, in the study {study.name}; "
            f"try {os.path.relpath(study.parent / f'{study.name}-{name}')}"
        )


def _fit_ending(option: str, path: Path, endings: Sequence[str]) -> Path:
    """Return the file with an ending that it may have; itself where it has one, or may have any."""
    if not endings or path.suffix in endings:
        return path
    if path.stem.startswith("."):  # .csv alone
        return path.with_name(option.lstrip("-") + endings[0])
    return path.with_suffix(endings[0])


def _locate(path: Path) -> Path:
    """Return the one name of a file; a link stays itself, as writing replaces the link."""
    return Path(os.path.realpath(path.parent)) / path.name

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

    Args:
        files: By the option that names each; None where it was not given.
        endings: What the file of an option may end in, the usual one first; one without may end in anything.
    Raises:
        ConfigurationError: If one ends in something else or cannot be written, or two are the same file.
    """
    options: dict[Path, str] = {}  # by what each would replace
    for option, path in files.items():
        if path is None:
            continue
        _check_ending(option, path, (endings or {}).get(option, ()))
        check_can_write(path, is_folder=False, option=option)
        other = options.setdefault(_locate(path), option)
        if other != option:
            raise ConfigurationError(
                f"expected a file of its own for {option}, got {path} for {other} too; try another {option}"
            )


def check_outside_studies(files: Mapping[str, Path | None]) -> None:
    """Check that no file would lie inside of a study's folder, where it could replace what the study is.

    Args:
        files: As `check_output_files` takes them.
    Raises:
        ConfigurationError: If one would.
    """
    for option, path in files.items():
        above = () if path is None else _locate(path).parents
        studies = [folder for folder in above if StudyFolder(folder).study_json.exists()]
        if path is not None and studies:
            outside = os.path.relpath(studies[-1].parent / f"comparison{path.suffix}")
            raise ConfigurationError(
                f"expected {option} outside of every study's folder, got {path}, in the study "
                f"{studies[-1].name}; try {outside}"
            )


def _check_ending(option: str, path: Path, endings: Sequence[str]) -> None:
    if endings and path.suffix not in endings:
        name = path.stem or option.lstrip("-")
        raise ConfigurationError(
            f"expected {option} to end in {' or '.join(endings)}, got {path}; try {name}{endings[0]}"
        )


def _locate(path: Path) -> Path:
    """Return the one name of a file; a link stays itself, as writing replaces the link."""
    return Path(os.path.realpath(path.parent)) / path.name

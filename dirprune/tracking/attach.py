"""Files that are made after a study has ended, attached to its run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dirprune.tracking.server import default_tracking_uri
from dirprune.tracking.store import RunStore, is_tracked


def attach_files(tracking_uri: str | None, output: Path, study_id: str, paths: Iterable[Path]) -> bool:
    """Store files as artifacts of a study's run.

    Args:
        tracking_uri: The store; None: the default one, if it is there.
        output: Folder of all studies.
        study_id: The study's own id.
        paths: The files; older ones of the same names are replaced.
    Returns:
        Whether the study has a run; without one nothing is stored.
    """
    if not is_tracked(tracking_uri, output, study_id):
        return False
    store = RunStore(tracking_uri or default_tracking_uri(output), output, study_id)
    study, _ = store.find_runs()
    assert study is not None
    for path in paths:
        store.log_file(study, path)
    return True

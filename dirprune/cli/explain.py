"""`dirprune explain`: which choices moved each objective of a study."""

from __future__ import annotations

import math
from pathlib import Path

import click

from dirprune.cli.options import MIN_R2, check_can_write
from dirprune.cli.printing import format_table
from dirprune.errors import ConfigurationError, StudyError, suggest
from dirprune.explain import (
    Explanation,
    draw_beeswarm,
    summarise,
    write_table,
)
from dirprune.explain import explain as compute_explanations
from dirprune.records.folder import StudyFolder
from dirprune.tracking import attach_files, check_default_store, check_server
from dirprune.tuning import storage


def explain(
    study: Path, storage_url: str, chosen: tuple[str, ...], min_r2: float, seed: int, tracking_uri: str | None
) -> None:
    """Explain which choices moved the objectives of the study in folder STUDY."""
    if not min_r2 <= 1:
        raise ConfigurationError(f"R2 is at most 1, got --min-r2 {min_r2:g}; try {MIN_R2:g}")
    folder = StudyFolder(study)
    payload = storage.read_study_json(folder)
    metrics = [metric for metric, _ in payload["description"]["objectives"]]
    for metric in chosen:
        if metric not in metrics:
            raise ConfigurationError(f"{metric!r} is no objective of {study.name}{suggest(metric, metrics)}")
    if tracking_uri:
        check_server(tracking_uri)
    else:
        check_default_store(folder.output, payload["id"])
    check_can_write(folder.root, is_folder=True, option="STUDY")
    records = storage.read_records(folder, storage_url)
    explanations = compute_explanations(records, chosen or metrics, seed)
    files = [_show(folder, explanation, min_r2) for explanation in explanations]
    trusted = [explanation for explanation in explanations if explanation.is_trusted(min_r2)]
    if not trusted:
        folder.explanations_csv.unlink(missing_ok=True)  # of an earlier run
        raise StudyError(
            f"no surrogate reached an out-of-fold R2 of {min_r2:g}; explanations of worse ones mislead: "
            "run more trials with --resume, or lower --min-r2"
        )
    write_table(folder.explanations_csv, trusted)
    written = [folder.explanations_csv, *(path for path in files if path is not None)]
    click.echo(f"\nfiles: {', '.join(map(str, written))}")
    if attach_files(tracking_uri, folder.output, payload["id"], written):
        click.echo("MLflow: the same files on the study's run")


def _show(folder: StudyFolder, explanation: Explanation, min_r2: float) -> Path | None:
    """Print one objective and draw its picture; None, and no picture, if its surrogate cannot be trusted."""
    path = folder.explanation_png(explanation.metric)
    if explanation.r2 == -math.inf:
        click.echo(f"\n{explanation.metric}: not explained: its finished trials do not differ in it")
        path.unlink(missing_ok=True)  # of an earlier run
        return None
    click.echo(f"\n{explanation.metric}: out-of-fold R2 {explanation.r2:.2f}, {explanation.of_what}")
    if not explanation.is_trusted(min_r2):
        click.echo(f"not explained: the surrogate predicts unseen trials too badly (--min-r2 {min_r2:g})")
        path.unlink(missing_ok=True)  # of an earlier run
        return None
    rows = [("choice", "mean |SHAP|", "effect"), *summarise(explanation)]
    width = max(len(effect) for *_, effect in rows)
    header, *lines = [(name, strength, effect.ljust(width)) for name, strength, effect in rows]
    click.echo(format_table(header, lines))
    draw_beeswarm(path, explanation)
    return path

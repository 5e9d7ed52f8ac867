"""`dirprune sync`: a study brought to MLflow from its own records."""

from __future__ import annotations

from pathlib import Path

import click

from dirprune.cli.options import check_can_write
from dirprune.cli.own_network import load_own_network
from dirprune.cli.printing import ScoringProgress, print_registered
from dirprune.records.finalists import read_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.views import write_views
from dirprune.tracking import (
    check_model_name,
    check_name,
    check_server,
    default_tracking_uri,
    register_front,
    sync_study,
    ui_command,
)
from dirprune.tuning import storage


def sync(
    study: Path, storage_url: str, tracking_uri: str | None, register: str | None, network: str | None
) -> None:
    """Rebuild or complete the study in folder STUDY in MLflow, from its own records."""
    if register is not None:
        check_model_name(register)
    folder = StudyFolder(study)
    payload = storage.read_study_json(folder)
    described = payload["description"].get("network", {})
    own = None if network is None else load_own_network(network, described)
    check_can_write(folder.root, is_folder=True, option="STUDY")
    uri = tracking_uri or default_tracking_uri(folder.output)
    check_server(uri)
    with storage.hold_study(folder):
        records = storage.read_records(folder, storage_url)
        summary = storage.make_summary(folder, payload, len(records), resumed=True)
        check_name(uri, summary.name, summary.objectives, summary.study_id)
        records = mark_front(records, summary.objectives)
        write_views(summary, records)
        with ScoringProgress(["runs"], title="to MLflow") as progress:
            synced = sync_study(summary, records, uri, own, progress)
    noun = "trial" if synced.n_trials == 1 else "trials"
    click.echo(f"in MLflow: {synced.n_trials} {noun}, {synced.n_models} models")
    if synced.refused:
        click.echo(f"not in MLflow: {', '.join(synced.refused)}; the files of a model are with its trial")
        if own is None and "module" in described:
            click.echo(f"the network is your own; try again with --network FILE.py:{described['name']}")
    click.echo(f"MLflow: {ui_command(uri)}")
    if register is not None:
        finalists = read_finalists(folder, records, summary.objectives, summary.floor)
        print_registered(register, *register_front(summary, uri, register, records, finalists))

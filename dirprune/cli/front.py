"""`dirprune front` and `dirprune abandon`: what is done with a study that has been run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from dirprune.cli.options import check_can_write
from dirprune.cli.printing import format_table
from dirprune.cost import COST_METRICS
from dirprune.records.failures import describe_failures
from dirprune.records.finalists import Finalist, read_finalists
from dirprune.records.folder import StudyFolder
from dirprune.records.formatting import format_with_spread
from dirprune.records.front import mark_front, sort_front
from dirprune.records.record import TrialRecord
from dirprune.records.tables import format_architecture
from dirprune.records.views import write_views
from dirprune.study.objectives import Objective
from dirprune.tracking import MlflowTracker, check_default_store, check_server, is_tracked
from dirprune.tuning import storage


def front(study: Path, storage_url: str) -> None:
    """Print the Pareto front of the study in folder STUDY, and redraw its tables and pictures."""
    folder = StudyFolder(study)
    records = storage.read_records(folder, storage_url)
    summary = storage.make_summary(folder, storage.read_study_json(folder), len(records), resumed=True)
    objectives = summary.objectives
    records = mark_front(records, objectives)
    check_can_write(folder.root, is_folder=True, option="STUDY")
    write_views(summary, records)
    on_front = sort_front(records)
    counts = Counter(record.state for record in records)
    click.echo(", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "no trial has started")
    if failures := describe_failures(records):
        click.echo("\n".join(failures))
    finalists = read_finalists(folder, records, objectives, summary.floor)
    if finalists:
        click.echo(f"\n{format_finalists(finalists, objectives, folder)}\n\nfront of the search:")
    click.echo(format_front(on_front, objectives) if on_front else "no trial is on the front yet")
    click.echo(f"\nfiles: {folder.front_csv}, {folder.front_html}, {folder.front_png}")


def abandon(study: Path, storage_url: str, tracking_uri: str | None) -> None:
    """Give up the unfinished trials of the study in folder STUDY; they count as failed."""
    folder = StudyFolder(study)
    if tracking_uri:
        check_server(tracking_uri)
    else:
        check_default_store(folder.output, storage.read_study_json(folder)["id"])
    numbers = storage.abandon(folder, storage_url)
    if numbers:
        _bring_views_up_to_date(folder, storage_url, tracking_uri)
    if numbers:
        noun = "trial" if len(numbers) == 1 else "trials"
        click.echo(f"abandoned: {len(numbers)} {noun} ({', '.join(map(str, numbers))})")
    else:
        click.echo("abandoned: none, every trial of the study has ended")


def _bring_views_up_to_date(folder: StudyFolder, storage_url: str, tracking_uri: str | None) -> None:
    """Bring tables, pictures and MLflow's runs of a study that nobody will continue to their final states."""
    records = storage.read_records(folder, storage_url)
    summary = storage.make_summary(folder, storage.read_study_json(folder), len(records), resumed=True)
    records = mark_front(records, summary.objectives)
    write_views(summary, records)
    if not is_tracked(tracking_uri, folder.output, summary.study_id):
        return
    tracker = MlflowTracker(tracking_uri)
    tracker.study_started(summary)
    tracker.study_ended(records, interrupted=False)
    if left := tracker.close():
        click.echo(f"not in MLflow: {', '.join(left)}")


def format_finalists(
    finalists: Sequence[Finalist], objectives: Sequence[Objective], folder: StudyFolder
) -> str:
    """Return the finalists as a table, in the order given, with what its numbers are.

    Args:
        finalists: By macs, the final front marked.
        objectives: Their metrics are shown, and the test values of val_*.
        folder: The study's.
    """
    metrics = _list_metrics([finalist.record for finalist in finalists], objectives)
    rows = []
    for finalist in finalists:
        record = finalist.record
        cells = [
            "" if value is None else format_with_spread(metric, value, finalist.spread.get(metric), "+-")
            for metric in metrics
            for value in [record.metrics.get(metric)]
        ]
        where = finalist.model_dir(folder).relative_to(folder.root)
        mark = "yes" if record.is_front else "no"
        rows.append([str(record.number), mark, str(finalist.n_seeds), *cells, str(where)])
    return (
        "final front: mean and standard deviation over the finalists' seeds; validation decides, and chooses "
        f"the model\n{format_table(['trial', 'on front', 'seeds', *metrics, 'model'], rows)}"
    )


def format_front(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    """Return the front as a table in the order given.

    Args:
        records: The trials on the front.
        objectives: Their metrics come first, each val_* one with its test value beside it.
    """
    metrics = _list_metrics(records, objectives)
    rows = [
        [
            str(record.number),
            record.source,
            *(_format(metric, record.metrics.get(metric)) for metric in metrics),
            record.method,
            format_architecture(record),
        ]
        for record in records
    ]
    return format_table(["trial", "source", *metrics, "method", "architecture"], rows)


def _list_metrics(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[str]:
    """Return objectives that are no cost, each val_* one with its test value behind it, then the costs."""
    metrics: list[str] = []
    for objective in objectives:
        if objective.metric in COST_METRICS:
            continue
        metrics.append(objective.metric)
        tested = objective.metric.replace("val_", "test_", 1)
        if any(tested in record.metrics for record in records) and tested not in metrics:
            metrics.append(tested)
    return [*metrics, *COST_METRICS]


def _format(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if metric in COST_METRICS else f"{value:.4f}"

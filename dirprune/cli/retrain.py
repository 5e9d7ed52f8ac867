"""`dirprune retrain`: a pruned model, fine-tuned further."""

from __future__ import annotations

from pathlib import Path

import click

from dirprune.cli.options import (
    DataOptions,
    TrainingOptions,
    check_can_write,
)
from dirprune.cli.subjects import format_comparison, pruned_subject, store
from dirprune.cli.training import remove_states


def retrain(
    model: Path, training: TrainingOptions, data: DataOptions, network: str | None, output: Path | None
) -> None:
    """Fine-tune a pruned model; FILE is its folder, or a file in it, as prune or a study wrote it."""
    folder = model.absolute().parent if model.is_file() else model
    if output is None:
        output = folder.with_name(f"{folder.name}-retrained")
    check_can_write(output, is_folder=True)
    subject, architecture, kept = pruned_subject(folder, data, network)
    before = subject.measure(subject.network)
    subject.train_(subject.network, training, output, is_fine_tuning=True)
    after = subject.measure(subject.network)
    store(output, subject, subject.network, architecture, kept, after)
    remove_states(output)
    click.echo("\n" + format_comparison({"before": before, "after": after}))
    click.echo(f"\nmodel: {output}")

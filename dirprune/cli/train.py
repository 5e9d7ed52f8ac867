"""`dirprune train`: a dense network from scratch."""

from __future__ import annotations

from pathlib import Path

import click

from dirprune.cli.options import DataOptions, TrainingOptions
from dirprune.cli.output_files import check_output_files
from dirprune.cli.subjects import format_comparison, new_subject
from dirprune.cli.training import remove_states
from dirprune.cli.weights import write_weights
from dirprune.networks import as_file_name

ENDINGS = {"--output": (".safetensors",)}


def train(network: str, data: DataOptions, training: TrainingOptions, output: Path | None) -> None:
    """Train a network from scratch and keep its weights; the same command goes on with what was cut off."""
    check_output_files({"--output": output}, ENDINGS)
    subject = new_subject(network, data)
    if output is None:
        name = f"{as_file_name(subject.header.network)}-{subject.header.dataset}-seed{data.seed}"
        output = Path("output") / f"{name}.safetensors"
        check_output_files({"--output": output}, ENDINGS)
    before = subject.measure(subject.network)
    subject.train_(subject.network, training, output)
    after = subject.measure(subject.network)
    write_weights(subject.network, output, subject.header)
    remove_states(output)
    click.echo("\n" + format_comparison({"before": before, "after": after}))
    click.echo(f"\nweights: {output}")

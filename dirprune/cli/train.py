"""`dirprune train`: a dense network from scratch."""

from __future__ import annotations

from pathlib import Path

import click

from dirprune.cli.options import (
    DataOptions,
    TrainingOptions,
    check_can_write,
)
from dirprune.cli.subjects import format_comparison, new_subject
from dirprune.cli.training import remove_states
from dirprune.cli.weights import write_weights
from dirprune.errors import WeightsError
from dirprune.networks import as_file_name


def train(network: str, data: DataOptions, training: TrainingOptions, output: Path | None) -> None:
    """Train a network from scratch and keep its weights; the same command goes on with what was cut off."""
    if output is not None:
        _check_output(output)
    subject = new_subject(network, data)
    if output is None:
        name = f"{as_file_name(subject.header.network)}-{subject.header.dataset}-seed{data.seed}"
        output = Path("output") / f"{name}.safetensors"
        _check_output(output)
    before = subject.measure(subject.network)
    subject.train_(subject.network, training, output)
    after = subject.measure(subject.network)
    write_weights(subject.network, output, subject.header)
    remove_states(output)
    click.echo("\n" + format_comparison({"before": before, "after": after}))
    click.echo(f"\nweights: {output}")


def _check_output(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"expected an --output that ends in .safetensors, got {path}; try {path.stem}.safetensors"
        )
    check_can_write(path, is_folder=False)

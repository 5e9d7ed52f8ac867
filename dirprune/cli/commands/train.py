"""`dirprune train`: a dense network from scratch."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FILE, data_options, training_options
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.option(
    "--network",
    default="lenet5",
    show_default=True,
    metavar="NAME",
    help="Network to train; FILE.py:NAME is a function of your own that returns one.",
)
@data_options
@training_options
@click.option(
    "--output",
    type=FILE,
    help="Weights file to write. Default: output/<network>-<dataset>-seed<S>.safetensors.",
)
def train(**given: Any) -> None:
    """Train a network from scratch and keep its weights."""
    with leaving_at_ctrl_c():
        from dirprune.cli.train import train as run

    run(**given)

"""`dirprune retrain`: a pruned model, fine-tuned further."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FOLDER, FilePath, data_options, network_option, training_options
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.argument("model", type=FilePath("FILE"), metavar="FILE")
@training_options
@data_options
@network_option
@click.option("--output", type=FOLDER, help="Folder for the result. Default: <model>-retrained.")
def retrain(**given: Any) -> None:
    """Fine-tune a pruned model; FILE is its folder, or a file in it, as prune or a study wrote it."""
    with leaving_at_ctrl_c():
        from dirprune.cli.retrain import retrain as run

    run(**given)

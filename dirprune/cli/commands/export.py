"""`dirprune export`: a network of a study as a file for other programs."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FILE, FOLDER, Number, OneOf, network_option, storage_option
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.argument("study", type=FOLDER, metavar="STUDY")
@click.option("--trial", metavar="N", help="Number of the trial, or best, smallest or knee.")
@click.option(
    "--finalist",
    metavar="N",
    help="Number of the finalist, or best, smallest or knee of the final front: its best seed's network.",
)
@click.option(
    "--format",
    "kind",
    default="pt2",
    show_default=True,
    type=OneOf(["pt2", "onnx", "safetensors"]),
    help="What to write.",
)
@click.option(
    "--output",
    type=FILE,
    help="Where to; safetensors: a folder. Default: <study>/exports/<trial>.<format>, or "
    "finalist-<trial>.<format> there.",
)
@click.option(
    "--tolerance",
    type=Number(),
    default=1e-4,
    show_default=True,
    help="Largest difference of outputs from the network's own.",
)
@network_option
@storage_option
def export(**given: Any) -> None:
    """Write a network of the study in folder STUDY in a format that other programs read.

    best is the most accurate network of the front, smallest the one with the fewest MACs, knee the one from
    which neither objective improves without the other losing much. What was written is read again and must
    give the same outputs, for more than one batch size. Without --trial and --finalist it says which there
    are.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.export import export as run

    run(**given)

"""`dirprune prune`: a trained network cut to an architecture, and fine-tuned if asked."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FILE, FOLDER, data_options, method_options, training_options
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.option("--weights", type=FILE, required=True, help="Weights of the trained network.")
@click.option(
    "--network",
    metavar="NAME",
    help="Their network, where the file does not say it, or FILE.py:NAME of your own. Default: lenet5.",
)
@click.option(
    "--arch",
    required=True,
    metavar="N,N,...",
    help="Channels to keep of each group, in forward order, such as 8,9,36,17; or, for a ResNet, inside the "
    "blocks of each stage or inside each block: 8,16,32; or of groups by name, alone or behind the numbers: "
    "'layer1.*=8,conv1=12'. `dirprune doctor` shows the groups. VGG-16 takes 15 numbers "
    "if the last two are equal.",
)
@method_options
@click.option(
    "--reconstruct",
    is_flag=True,
    help="Refit the layers behind the cuts to the dense network's outputs by least squares.",
)
@click.option("--retrain", is_flag=True, help="Fine-tune after pruning.")
@training_options
@data_options
@click.option(
    "--output",
    type=FOLDER,
    help="Folder for the model. Default: output/pruned/<network>-<method>-<arch>, a long name shortened.",
)
def prune(**given: Any) -> None:
    """Keep the most important channels of a trained network and store the smaller one."""
    with leaving_at_ctrl_c():
        from dirprune.cli.prune import prune as run

    run(**given)

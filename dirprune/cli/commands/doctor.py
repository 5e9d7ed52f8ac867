"""`dirprune doctor`: what of a network can be cut, what a study of it can reach, and the time of a step."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.commands.latency import Shape, device_option, threads_option
from dirprune.cli.options import FILE, PLACE, Number, WholeNumber
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.option(
    "--network",
    required=True,
    metavar="NAME",
    help="resnet56, torchvision/resnet50, or FILE.py:NAME or module:NAME, a function of your own.",
)
@click.option("--weights", type=FILE, help="Trained weights, to see whether they load and how good they are.")
@click.option("--data", type=PLACE, help="Folder or URI of the data set, to judge the weights.")
@click.option(
    "--dataset",
    metavar="NAME",
    help="The data set, such as cifar10, or folders:112. Default: class folders with --data.",
)
@click.option(
    "--input-shape",
    type=Shape(),
    help="One input: 3,32,32. Default: that of the data set, or what is usual for the network.",
)
@click.option("--classes", type=WholeNumber(2), help="Outputs of the network. Default: the data set's.")
@click.option(
    "--min-keep-ratio",
    type=Number(),
    default=0.1,
    show_default=True,
    help="Smallest share of each group that a study may keep.",
)
@click.option(
    "--channel-multiple",
    type=WholeNumber(),
    default=1,
    show_default=True,
    help="Widths of a study are multiples of it, or those of a whole group.",
)
@click.option(
    "--batch-size",
    type=WholeNumber(),
    default=32,
    show_default=True,
    help="Inputs of a timed step.",
)
@threads_option
@device_option
def doctor(**given: Any) -> None:
    """Look at a network before a study: what can be cut and what not, and why; the costs that a study can
    reach; and the time of a plain step here, without what a study's recipe adds.

    Nothing is written. Each group is tried out: cutting it must give what masking its channels gives.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.doctor import doctor as run

    run(**given)

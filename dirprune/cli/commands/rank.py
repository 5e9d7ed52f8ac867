"""`dirprune rank`: the importance of every channel of a trained network."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FILE, Number, data_options, method_options
from dirprune.interruption import leaving_at_ctrl_c


def _list_methods(context: click.Context, parameter: click.Parameter, pattern: str | None) -> None:
    """List the methods that match a pattern, if one is given, and leave."""
    if pattern is not None:
        with leaving_at_ctrl_c():
            from dirprune.cli.methods import format_methods

        click.echo(format_methods(pattern))
        context.exit()


EXAMPLE = """\b
Example:
  dirprune train --output lenet.safetensors
  dirprune rank --weights lenet.safetensors --method shapley \\
      --compare taylor --plot scores.png
"""


@click.command(epilog=EXAMPLE)
@click.option("--weights", type=FILE, help="Weights of the trained network.")
@click.option(
    "--network",
    metavar="NAME",
    help="Their network, where the file does not say it, or FILE.py:NAME of your own. Default: lenet5.",
)
@method_options
@click.option(
    "--list",
    is_flag=False,
    flag_value="*",
    metavar="[PATTERN]",
    is_eager=True,
    expose_value=False,
    callback=_list_methods,
    help="List the importance methods, or those that match, such as 'shapley*', and leave; of a single one "
    "also what its options mean.",
)
@click.option(
    "--compare",
    "others",
    multiple=True,
    metavar="NAME",
    help="Another method, with its default options, to compare the order with; may be given several times.",
)
@click.option(
    "--budget",
    type=Number(),
    help="Show also the network of a greedy path that costs at most so many MACs, or what --cost names: "
    "parameters, or milliseconds of latency.",
)
@data_options
@click.option("--output", type=FILE, help="JSON file to write the scores to.")
@click.option("--plot", type=FILE, help="PNG file to draw the scores in.")
def rank(**given: Any) -> None:
    """Score the channels of a trained network, which stays as it is; a higher score means keep."""
    with leaving_at_ctrl_c():
        from dirprune.cli.rank import rank as run

    run(**given)

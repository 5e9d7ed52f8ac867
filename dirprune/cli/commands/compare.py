"""`dirprune compare`: studies side by side, judged alike."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FILE, FOLDER, OneOf, storage_option
from dirprune.interruption import leaving_at_ctrl_c

EXAMPLE = """\b
Example:
  dirprune compare output/magnitude-* output/random-* --plot fronts.png
"""


@click.command(epilog=EXAMPLE)
@click.argument("studies", type=FOLDER, metavar="STUDY...", nargs=-1, required=True)
@click.option(
    "--by",
    type=OneOf(["methods", "study"]),
    default="methods",
    show_default=True,
    help="What makes a group: the importance methods that trials may take, so that its studies are "
    "repetitions, or each study by itself.",
)
@click.option(
    "--floor",
    metavar="A",
    help="Least validation accuracy for all: 0.95, or dense-0.02 for two points below the dense network. "
    "Default: the highest of the studies' own.",
)
@click.option(
    "--budgets",
    default="0.75,0.5,0.25",
    show_default=True,
    metavar="X,...",
    help="Limits of cost as shares of the dense network's, for which networks are chosen.",
)
@click.option(
    "--output", type=FILE, help="CSV or JSON file for the comparison; the JSON has each study, too."
)
@click.option("--plot", type=FILE, help="PNG file to draw the fronts in.")
@storage_option
def compare(**given: Any) -> None:
    """Compare the search's fronts of two or more studies of the same network and data.

    Hypervolumes begin at one reference point for all studies. Within each budget validation chooses a network
    of each study, and test reports it; means and standard deviations are over the studies of a group. What
    else than the group may make studies differ is warned of; what cannot be compared is refused. Folders that
    hold no study, such as dense and scores beside the studies, are left out.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.compare import compare as run

    run(**given)

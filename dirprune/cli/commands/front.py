"""`dirprune front` and `dirprune abandon`: what is done with a study that has been run."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FOLDER, TRACKING_URI, refuse_password, storage_option
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.argument("study", type=FOLDER, metavar="STUDY")
@storage_option
def front(**given: Any) -> None:
    """Print the Pareto front of the study in folder STUDY, and redraw its tables and pictures."""
    with leaving_at_ctrl_c():
        from dirprune.cli.front import front as run

    run(**given)


@click.command
@click.argument("study", type=FOLDER, metavar="STUDY")
@storage_option
@click.option(
    "--tracking-uri",
    metavar="URI",
    envvar=TRACKING_URI,
    callback=refuse_password,
    help="MLflow server to tell. Default: $MLFLOW_TRACKING_URI, or <output>/mlflow.db, if it is there.",
)
def abandon(**given: Any) -> None:
    """Give up the unfinished trials of the study in folder STUDY; they count as failed."""
    with leaving_at_ctrl_c():
        from dirprune.cli.front import abandon as run

    run(**given)

"""`dirprune sync`: a study brought to MLflow from its own records."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FOLDER, TRACKING_URI, network_option, refuse_password, storage_option
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.argument("study", type=FOLDER, metavar="STUDY")
@storage_option
@click.option(
    "--tracking-uri",
    metavar="URI",
    envvar=TRACKING_URI,
    callback=refuse_password,
    help="Where to; any store or server. Default: $MLFLOW_TRACKING_URI, or <output>/mlflow.db.",
)
@click.option(
    "--register", metavar="NAME", help="Also register the front's models there as versions of this one."
)
@network_option
def sync(**given: Any) -> None:
    """Rebuild or complete the study in folder STUDY in MLflow, from its own records.

    Trials, curves, tables, pictures and models of the front; what is there already stays as it is. A study
    that is being driven is refused: its driver brings it to MLflow.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.sync import sync as run

    run(**given)

"""`dirprune explain`: which choices moved each objective of a study."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import (
    FOLDER,
    MIN_R2,
    TRACKING_URI,
    WholeNumber,
    refuse_password,
    storage_option,
)
from dirprune.interruption import leaving_at_ctrl_c


@click.command
@click.argument("study", type=FOLDER, metavar="STUDY")
@storage_option
@click.option(
    "--objective", "chosen", multiple=True, metavar="METRIC", help="Only this one; may be repeated."
)
@click.option(
    "--min-r2",
    default=MIN_R2,
    show_default=True,
    help="Explain nothing whose surrogate predicts unseen trials worse than this.",
)
@click.option("--seed", type=WholeNumber(0), default=0, show_default=True, help="Of the surrogate.")
@click.option(
    "--tracking-uri",
    metavar="URI",
    envvar=TRACKING_URI,
    callback=refuse_password,
    help="MLflow server. Default: $MLFLOW_TRACKING_URI, or <output>/mlflow.db, if it is there.",
)
def explain(**given: Any) -> None:
    """Explain which choices moved the objectives of the study in folder STUDY.

    A surrogate learns each objective from all trials, stopped ones included, with the training images as one
    of its inputs; SHAP values say how much every channel group's width, the method and each hyperparameter
    moved each trial at full resource. A table and a picture for each objective go into the study's folder and
    to its run in MLflow.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.explain import explain as run

    run(**given)

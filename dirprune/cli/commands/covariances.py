"""`dirprune covariances`: which channels of a trained network go together, and do seeds agree about it."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import (
    FILE,
    FOLDER,
    LAPLACE,
    LARGEST,
    KeyValue,
    WholeNumber,
    cache_option,
    data_options,
    memory_option,
)
from dirprune.interruption import leaving_at_ctrl_c


class Seeds(click.ParamType):
    """Different whole numbers from zero on, separated by commas."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the seeds, or fail with an example."""
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
            self.fail(f"expected different whole numbers such as 0,1,2, got {str(value)!r}", param, ctx)
        if max(map(int, parts)) > LARGEST:
            self.fail(f"expected whole numbers of at most {LARGEST}, got {str(value)!r}", param, ctx)
        return tuple(map(int, parts))


@click.command
@click.option("--weights", type=FILE, required=True, help="Weights of the trained network.")
@click.option(
    "--network",
    metavar="NAME",
    help="Their network, where the file does not say it, or FILE.py:NAME of your own. Default: lenet5.",
)
@click.option(
    "--method",
    metavar="NAME",
    default=LAPLACE,
    show_default=True,
    help="Posterior: laplace (from curvature, nothing is fitted), logistic-normal, generalized-dirichlet "
    "or dirichlet.",
)
@click.option(
    "--method-options",
    type=KeyValue(),
    multiple=True,
    help="Option of the method, such as steps=400; may be given several times.",
)
@click.option(
    "--seeds",
    type=Seeds(),
    default="0,1,2",
    show_default=True,
    help="One posterior is fitted with each, or, by laplace, on one of so many disjoint parts of the images; "
    "what they do not agree about is noise.",
)
@click.option(
    "--null-draws",
    type=WholeNumber(0),
    help="Draws of the null, in which images share no interactions: what agreement is worth shows beside it. "
    "Each fits every posterior anew, but for laplace. Default: by laplace 19, or fewer in wide networks.",
)
@data_options
@cache_option
@memory_option
@click.option("--output", type=FOLDER, required=True, help="Folder for covariances.json and the pictures.")
def covariances(**given: Any) -> None:
    """Show which channels of a trained network go together; the network stays as it is.

    Switches on the channels of a group share a simplex, so that the covariances in every row sum to zero and
    the average pair is negative. A Dirichlet makes every pair negative. The excess of a covariance over the
    Dirichlet with the same means and the same total variance tells what the other families learnt:

    \b
      positive   the two channels help only together; keep both or neither
      negative   they are substitutes; one of them may be enough

    Correlations and excesses of pairs are covariances over both standard deviations. "positive (> 0.02)"
    counts the seeds or image parts in which a correlation is above 0.02, more than twice the error of a
    sampled one. Seeds also agree about channels
    that have nothing to do with one another, by how much each counts on its own. Believe only groups that
    agree more than without interactions (the null), and there only pairs that all seeds show.

    covariances.json says the same of more pairs, and which images all comes from. Its matrices "covariance"
    and "excess_covariance", averaged over seeds, are not divided by standard deviations.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.covariances import covariances as run

    run(**given)

"""What a report at a rung costs by the number of trials that reached it, of both ways of halving.

    python benchmarks/scale_halving.py [--sizes 100,1000,10000] [--objectives 1,2,3,5] [--reports 40]

Made-up losses that trade off, as an accuracy and costs do; every trial reports at one rung. Median and
longest of the last reports before each size, in ms of the processor; whom to promote next is in them.
"""

from __future__ import annotations

import time

import click
import numpy as np

from dirprune.cli.printing import format_table
from dirprune.halving import PromotingHalving, StoppingHalving
from dirprune.halving.base import Halving

RUNG = 0
WAYS = {"stopping": StoppingHalving, "promoting": PromotingHalving}


def draw_losses(n_objectives: int, generator: np.random.Generator) -> list[float]:
    """Return losses near a front: points of a simplex, and what each lacks."""
    return [float(loss) for loss in generator.dirichlet(np.ones(n_objectives)) + generator.exponential(0.2)]


def report(halving: Halving, trial: int, losses: list[float]) -> float:
    """Return the seconds of one report and of looking for whom to promote after it."""
    began = time.process_time()
    halving.report(trial, RUNG, losses)
    halving.next_promotion()
    return time.process_time() - began


@click.command(context_settings={"show_default": True})
@click.option("--sizes", default="100,1000,10000")
@click.option("--objectives", default="1,2,3,5")
@click.option("--reports", "n_reports", default=40, help="Measured before each size.")
def main(sizes: str, objectives: str, n_reports: int) -> None:
    """Measure reports."""
    rows = []
    for n_objectives in map(int, objectives.split(",")):
        for name, way in WAYS.items():
            halving, generator = way([RUNG]), np.random.default_rng(0)
            n_known = 0
            for size in map(int, sizes.split(",")):
                for trial in range(n_known, size - n_reports):
                    halving.remember(trial, RUNG, draw_losses(n_objectives, generator))
                seconds = [
                    report(halving, trial, draw_losses(n_objectives, generator))
                    for trial in range(max(n_known, size - n_reports), size)
                ]
                n_known = size
                cells = [f"{1000 * value:.1f}" for value in (np.median(seconds), max(seconds))]
                rows.append([name, str(n_objectives), f"{size:,}", *cells])
                click.echo(f"{rows[-1]}", err=True)
    click.echo(format_table(["halving", "objectives", "trials", "report, ms (median)", "longest, ms"], rows))


if __name__ == "__main__":
    main()

"""`dirprune latency` and `dirprune fit-latency`: how long networks take on this machine."""

from __future__ import annotations

from typing import Any

import click

from dirprune.cli.options import FILE, FOLDER, WholeNumber, network_option
from dirprune.interruption import leaving_at_ctrl_c

MAX_DIGITS = 18
"""Of a size that torch can hold."""


class Shape(click.ParamType):
    """The shape of one input, written as 3,32,32."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the sizes, or fail with an example."""
        parts = [part.strip() for part in str(value).split(",")]
        if longest := [part for part in parts if part.isdecimal() and len(part) > MAX_DIGITS]:
            self.fail(f"expected sizes of {MAX_DIGITS} digits at most, got {longest[0][:40]}", param, ctx)
        if not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"expected whole numbers above 0, got {str(value)!r}; for example 3,32,32", param, ctx)
        return tuple(map(int, parts))


batch_option = click.option(
    "--batch-size",
    type=WholeNumber(),
    default=1,
    show_default=True,
    help="Inputs of the batch that is timed.",
)
threads_option = click.option(
    "--threads", type=WholeNumber(), default=1, show_default=True, help="CPU threads of a pass."
)
device_option = click.option(
    "--device", metavar="NAME", help="cpu or cuda. Default: cuda where there is one."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of weights and inputs: that in which the network will be deployed.",
)


@click.command
@click.argument("study", type=FOLDER, metavar="STUDY")
@batch_option
@threads_option
@device_option
@precision_option
@click.option(
    "--runs", type=WholeNumber(2), default=50, show_default=True, help="Timed passes of each network."
)
@network_option
def latency(**given: Any) -> None:
    """Measure how long the networks on the front of the study in folder STUDY take on this machine, and those
    on its final front.

    MACs and latency disagree: run this where the network will be deployed. The networks are timed in turns, a
    few passes of each in every round, so that what the device does meanwhile meets all alike; the quartiles
    are of the passes of all rounds. A device on which passes differ too much, because something else runs
    there, is refused. Writes latency.csv and latency.png into STUDY, in place of what was measured before:
    all latencies so far, each with its batch, device, threads and precision, are in latencies.json.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.latency import latency as run

    run(**given)


@click.command
@click.option(
    "--network",
    required=True,
    metavar="NAME",
    help="Network whose architectures are measured, by name or FILE.py:NAME of your own; the file is run.",
)
@click.option("--input-shape", type=Shape(), required=True, help="One input: 1,28,28 or 3,32,32.")
@click.option("--output", type=FILE, required=True, help="File to write, for --latency FILE of a study.")
@batch_option
@threads_option
@device_option
@precision_option
@click.option(
    "--architectures",
    type=WholeNumber(10),
    default=40,
    show_default=True,
    help="How many are measured.",
)
@click.option(
    "--classes",
    type=WholeNumber(),
    metavar="N",
    help="Outputs of the network, where the study's data have other classes than those it was made for.",
)
def fit_latency(**given: Any) -> None:
    """Measure architectures of a network on this machine, and model the latency of all others.

    A study with the objective or limit latency_ms measures by itself where it runs. With the file of this
    command it takes the latencies of another machine: the one on which the network will be deployed. Where
    a study's network has options, a function of your own gives the network with them. A device that is busy
    is refused.
    """
    with leaving_at_ctrl_c():
        from dirprune.cli.latency import fit_latency as run

    run(**given)

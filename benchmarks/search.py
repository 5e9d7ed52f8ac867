"""Compare searches on a table of architectures, on simulated workers: nothing is trained.

    python benchmarks/search.py --output DIR run --sides "random;tpe;nsga2;ours" --seeds 10:30
    python benchmarks/search.py --output DIR run --table resnet20 ...
    python benchmarks/search.py --output DIR report

A side is a name, and for ours what differs from the default: "ours halving=stopping reduction_factor=3".
Every search appends a row to a file, and those that are there are left out. Settings are chosen on seeds 0 to
9, and what is claimed is measured on others.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from search_clock import EVALUATION, START, Side, simulate
from search_grid import EPOCHS, N_TRAIN, SUBJECTS
from search_moasha import Moasha
from search_ours import OurOptions, Ours
from search_plain import SAMPLERS, Plain
from search_ray import OptunaSearchAsha
from search_report import open_rows, report
from search_table import Table, load_table

N_TRIALS = 100
BUDGET = N_TRIALS * round(START + EPOCHS[-1] * N_TRAIN + EVALUATION)
"""By default as much as this many trials at full resource that are judged once."""


def parse_side(text: str, moasha: Path | None = None) -> Callable[[Table, int], Side]:
    """Return what makes a side for a grid and a seed.

    Args:
        text: A name and options.
        moasha: The Python that has syne-tune.
    Raises:
        click.BadParameter: If a name or an option is unknown.
    """
    name, *words = text.split()
    if name in SAMPLERS and not words:
        return lambda grid, seed: Plain(grid, seed, name)
    if name in ("ray", "moasha") and all(word.startswith("reduction_factor=") for word in words):
        factor = float(words[-1].partition("=")[2]) if words else (4 if name == "ray" else 3)
        if name == "ray":
            return lambda grid, seed: OptunaSearchAsha(grid, seed, factor)
        if moasha is None:
            raise click.BadParameter("moasha runs in a Python that has syne-tune; give --moasha-python FILE")
        return lambda grid, seed: Moasha(grid, seed, moasha, factor)
    if name == "ours":
        options = OurOptions(**dict(_parse_option(word) for word in words))
        return lambda grid, seed: Ours(grid, seed, options)
    raise click.BadParameter(f"unknown side {text!r}; try {', '.join(SAMPLERS)}, ray, moasha or ours")


def _parse_option(word: str) -> tuple[str, Any]:
    name, separator, value = word.partition("=")
    defaults = {field.name: field.default for field in dataclasses.fields(OurOptions)}
    if name not in defaults or not separator:
        raise click.BadParameter(f"expected option=value of {', '.join(defaults)}, got {word!r}")
    default = defaults[name]
    if isinstance(default, bool):
        return name, value == "yes"
    if isinstance(default, tuple):
        return name, tuple(int(part) for part in value.split(","))
    return name, type(default)(value)


@click.group(context_settings={"show_default": True})
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of rows and plots.")
@click.pass_context
def main(context: click.Context, output: Path) -> None:
    """Compare searches."""
    context.obj = output


@main.command()
@click.option(
    "--table",
    type=click.Choice(list(SUBJECTS)),
    default="lenet5",
    help="lenet5: a complete grid; resnet20: a model of a sample.",
)
@click.option("--sides", default="random;tpe;nsga2;ours", help="Between semicolons.")
@click.option("--seeds", default="0:10", help="From the first to before the last.")
@click.option("--workers", default=2, help="Simulated ones.")
@click.option("--budget", default=BUDGET, help="Cost of a search in trained images.")
@click.option("--judging", default=1.0, help="What judging costs; 0: as beside trials that are very long.")
@click.option(
    "--moasha-python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Python of an environment with syne-tune, for the side moasha.",
)
@click.pass_obj
def run(
    output: Path,
    table: str,
    sides: str,
    seeds: str,
    workers: int,
    budget: int,
    judging: float,
    moasha_python: Path | None,
) -> None:
    """Run searches."""
    rows = open_rows(output)
    first, last = (int(part) for part in seeds.split(":"))
    names = (" ".join(text.split()) for text in sides.split(";"))
    makers = {name: parse_side(name, moasha_python) for name in names}
    for seed in range(first, last):
        for name, make in makers.items():
            key = {"table": table, "side": name, "workers": workers, "budget": budget, "seed": seed}
            if judging != 1:
                key["judging"] = judging
            if rows.is_done(**key):
                continue
            grid, began = load_table(table), time.perf_counter()
            side = make(grid, seed)
            trace = simulate(side, grid, workers, budget, seed, judging)
            side.close()
            rows.add(key, {**trace.as_dict(), "seconds": round(time.perf_counter() - began, 2)})


main.add_command(report)

if __name__ == "__main__":
    main()

"""Measure the importance methods: speed, error, and what the networks that they prune are worth.

    export DIRPRUNE_BENCH_OUTPUT=DIR DIRPRUNE_BENCH_MNIST=DIR DIRPRUNE_BENCH_CIFAR=DIR
    export DIRPRUNE_BENCH_RESNET20=FILE DIRPRUNE_BENCH_RESNET56=FILE
    python benchmarks/importance.py --lenet FILE --lenet FILE coalitions
    python benchmarks/importance.py report

Every command appends rows to a file of its own in the output folder and leaves out those that are there, so
that it goes on where it was cut off; `report` prints the tables of all rows and draws the plots. With --quick
everything is as small as it can be: to see that it runs, not to be believed. A folder is of the same weights,
data and versions of methods throughout. Weights of LeNet-5 and VGG-16 come from
`dirprune train --network NAME`.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from importance_common import Setting, claim_folder
from importance_estimates import reference_ranking, shapley_error
from importance_forms import greedy_forms
from importance_peer import torch_pruning_peer
from importance_planted import planted_pairs
from importance_quality import after_fine_tuning, after_pruning, joint_switches
from importance_report import report
from importance_speed import coalitions, seconds

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"auto_envvar_prefix": "DIRPRUNE_BENCH", "show_default": True})
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder of rows and plots.")
@click.option("--mnist", type=FOLDER, help="Default: the digits that come with scikit-learn.")
@click.option("--lenet", type=FILE, multiple=True, help="Trained LeNet-5s; else one is trained shortly.")
@click.option("--cifar", type=FOLDER, help="CIFAR-10. Default: noise, for times only.")
@click.option("--resnet20", type=FILE, help="Published weights. Default: random ones, for times only.")
@click.option("--resnet56", type=FILE, help="Likewise.")
@click.option("--vgg16", type=FILE, help="Weights of `dirprune train`. Default: random ones, for times only.")
@click.option("--device", default="cpu")
@click.option("--threads", default=1, help="Of torch on the CPU.")
@click.option("--quick", is_flag=True, help="As small as it can be, to see that it runs.")
@click.pass_context
def main(
    context: click.Context,
    output: Path,
    mnist: Path | None,
    lenet: tuple[Path, ...],
    cifar: Path | None,
    resnet20: Path | None,
    resnet56: Path | None,
    vgg16: Path | None,
    device: str,
    threads: int,
    quick: bool,
) -> None:
    """Measure the importance methods."""
    torch.set_num_threads(threads)
    named = {"resnet20": resnet20, "resnet56": resnet56, "vgg16": vgg16}
    weights = {name: path for name, path in named.items() if path is not None}
    context.obj = Setting(output, mnist, lenet, cifar, weights, device, quick)
    if context.invoked_subcommand != "report":
        claim_folder(context.obj)


for command in (
    coalitions,
    reference_ranking,
    joint_switches,
    shapley_error,
    after_pruning,
    after_fine_tuning,
    greedy_forms,
    planted_pairs,
    torch_pruning_peer,
    seconds,
    report,
):
    main.add_command(command)

if __name__ == "__main__":
    main()

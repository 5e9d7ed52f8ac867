"""`dirprune prune`: a trained network cut to an architecture, and fine-tuned if asked."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from dirprune.architecture import Architecture, check_form
from dirprune.cli.options import (
    DataOptions,
    MethodOptions,
    TrainingOptions,
    check_can_write,
)
from dirprune.cli.own_method import find_method
from dirprune.cli.printing import ScoringProgress, format_table, kept_on_interrupt
from dirprune.cli.subjects import (
    format_comparison,
    look_for_groups,
    store,
    tell_of_uncounted,
    trained_subject,
)
from dirprune.cli.training import remove_states
from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.identity import digest
from dirprune.importance import ScoreCache, create
from dirprune.networks import as_file_name
from dirprune.pruning import prune as prune_network

WIDTH = 60
MAX_NAME = 150
"""Bytes of a folder's name. Most systems take up to 255; what is retrained from it, maybe twice, has a
longer name, and so have the files of a training until it has ended."""


def prune(
    weights: Path,
    network: str | None,
    arch: str,
    scoring: MethodOptions,
    reconstruct: bool,
    retrain: bool,
    training: TrainingOptions,
    data: DataOptions,
    output: Path | None,
) -> None:
    """Keep the most important channels of a trained network and store the smaller one."""
    if scoring.method is None:
        raise ConfigurationError("expected --method NAME, got nothing; try 'dirprune rank --list'")
    check_form(arch)
    if not retrain and training != TrainingOptions():
        raise ConfigurationError(
            "--recipe, --epochs, --early-stopping, --lr and --batch-size are of fine-tuning after pruning; "
            "try adding --retrain"
        )
    name = find_method(scoring.method)
    method = create(name, scoring.values())
    if output is not None:
        check_can_write(output, is_folder=True)
    check_can_write(scoring.cache, is_folder=True, option="--cache")
    subject = trained_subject(weights, network, data)
    dense = subject.network
    grouping = look_for_groups(dense, subject.roles.example_input())
    tell_of_uncounted(subject)
    grouping.check_any()
    architecture = Architecture.parse(arch, grouping)
    if output is None:
        output = Path("output/pruned") / name_folder(subject.header.network, name, architecture)
        check_can_write(output, is_folder=True)
    measured = {"dense": subject.measure(dense)}
    cache = ScoreCache(scoring.cache)
    pieces = [(name, method.is_kept_in_parts)]
    with kept_on_interrupt(cache, pieces), ScoringProgress(grouping.names) as progress:
        pruned = prune_network(
            dense,
            subject.roles,
            subject.task,
            architecture,
            method,
            seed=subject.seed,
            cache=cache,
            device=subject.device,
            grouping=grouping,
            progress=progress,
            memory_mb=scoring.memory_mb,
            reconstruct=reconstruct,
        )
    measured["pruned"] = subject.measure(pruned.network)
    if retrain:
        subject.train_(pruned.network, training, output, is_fine_tuning=True, teacher=subject.network)
        measured["retrained"] = subject.measure(pruned.network)
    metrics = list(measured.values())[-1]
    store(output, subject, pruned.network, architecture, pruned.kept, metrics)
    if retrain:
        remove_states(output)
    click.echo("\n" + format_kept(pruned.kept, grouping))
    click.echo("\n" + format_comparison(measured))
    click.echo(f"\nmodel: {output}")


def name_folder(network: str, method: str, architecture: Architecture) -> str:
    """Return the default name of a pruned model's folder; of a long one the start, and a digest of it all.

    Args:
        network: Its name, with the file of one's own.
        method: By which channels were scored.
        architecture: Which may have hundreds of groups.
    """
    name = f"{as_file_name(network)}-{method}-{architecture}"
    if len(name.encode()) <= MAX_NAME:
        return name
    end = f"...{digest(name)}"
    return name.encode()[: MAX_NAME - len(end)].decode(errors="ignore") + end


def format_kept(kept: Mapping[str, Sequence[int]], grouping: Grouping) -> str:
    """Return a table of the channels that each group keeps.

    Args:
        kept: Sorted indices of every group.
        grouping: The groups of the whole network.
    """
    rows = [
        [
            name,
            str(len(kept[name])),
            str(n_channels),
            textwrap.shorten(_join(kept[name]), WIDTH, placeholder=" .."),
        ]
        for name, n_channels in grouping.n_channels.items()
    ]
    return format_table(["group", "kept", "of", "channels"], rows)


def _join(channels: Sequence[int]) -> str:
    """Return sorted channels as in "0-3 5 8-9"."""
    runs: list[list[int]] = []
    for channel in channels:
        if runs and channel == runs[-1][-1] + 1:
            runs[-1].append(channel)
        else:
            runs.append([channel])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

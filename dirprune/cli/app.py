"""The command `dirprune`: each subcommand is imported when it is called, what it does when it runs."""

from __future__ import annotations

import importlib

import click

from dirprune import __version__
from dirprune.errors import suggest

COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("dirprune.cli.commands.train", "Train a network from scratch."),
    "rank": ("dirprune.cli.commands.rank", "Score the channels of a trained network."),
    "covariances": (
        "dirprune.cli.commands.covariances",
        "Show which channels of a trained network go together.",
    ),
    "prune": ("dirprune.cli.commands.prune", "Prune a trained network to an architecture."),
    "doctor": ("dirprune.cli.commands.doctor", "Look at what of a network can be cut, and why not the rest."),
    "retrain": ("dirprune.cli.commands.retrain", "Fine-tune a pruned model further."),
    "front": ("dirprune.cli.commands.front", "Print a study's Pareto front and redraw its pictures."),
    "compare": ("dirprune.cli.commands.compare", "Compare the fronts of studies, judged alike."),
    "latency": (
        "dirprune.cli.commands.latency",
        "Measure how long the networks of a study's front take here.",
    ),
    "fit-latency": (
        "dirprune.cli.commands.latency",
        "Measure here what studies elsewhere shall take for latency.",
    ),
    "explain": ("dirprune.cli.commands.explain", "Explain which choices moved a study's objectives."),
    "export": ("dirprune.cli.commands.export", "Write a network of a study for other programs, checked."),
    "sync": ("dirprune.cli.commands.sync", "Rebuild or complete a study in MLflow."),
    "abandon": ("dirprune.cli.commands.front", "Give up the unfinished trials of a study."),
}
"""Module and summary of each subcommand; the module has the command under its name, with _ for -."""


class LazyGroup(click.Group):
    """A group that imports its subcommands late, so that help costs no import of torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order in which one works."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand that the arguments begin with.

        Raises:
            UsageError: If there is none of that name; the nearest known one is named.
        """
        if args[0] not in COMMANDS:
            raise click.UsageError(f"unknown command {args[0]!r}{suggest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, invoke_without_command=True)
@click.version_option(__version__, prog_name="dirprune")
@click.pass_context
def program(context: click.Context) -> None:
    """Find which smaller networks are the best trades between accuracy and cost, and have them.

    A study is a script of its own, such as studies/lenet.py; these commands are the single steps.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())

"""The command line that every study script has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dirprune.interruption import INTERRUPTED, ended_by_sigterm, leaving_at_ctrl_c

with leaving_at_ctrl_c():  # a study script begins with importing this, and so with waiting for torch
    import click

    from dirprune.cli.errors import run_command
    from dirprune.cli.study_arguments import Arguments
    from dirprune.cli.study_options import study_options
    from dirprune.study.spec import StudySpec


class StudyCommand(click.Command):
    """A command whose help shows its options under headings.

    Args:
        callback: What it does, given all its options by name.
        help_text: What its help begins with.
        sections: Options by heading.
    """

    def __init__(
        self, callback: Callable[..., None], help_text: str, sections: Mapping[str, Sequence[click.Option]]
    ) -> None:
        params: list[click.Parameter] = [option for options in sections.values() for option in options]
        super().__init__("study", params=params, callback=callback, help=help_text)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of each section, and at the end the one for help."""
        help_option = self.get_help_option(ctx)
        for heading, options in [*self.sections.items(), ("Help", [help_option] if help_option else [])]:
            if rows := [row for option in options if (row := option.get_help_record(ctx))]:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def study_main(spec: StudySpec) -> None:
    """Run a study script: read its command line, run the study, print the front, leave with the exit status.

    0 when all trials ended; 2 for a user's mistake, when the study ended by itself before that (because its
    trials kept failing, say), and when no pruned trial finished because of failures: one line gives the
    reason; 130 after Ctrl-C or SIGTERM,
    unless all that was left to do was to complete MLflow.

    Args:
        spec: The study; the command line changes it where it is asked to.
    """
    raise SystemExit(run_command(make_command(spec)))


def make_command(spec: StudySpec) -> click.Command:
    """Return the command of a study script."""

    def command(**given: Any) -> None:
        with ended_by_sigterm():
            with leaving_at_ctrl_c():
                from dirprune.cli.study_run import run  # loads Ray, Optuna and MLflow

            result = run(spec, Arguments(**given))
        if result.is_interrupted and not result.finish_reason:
            raise click.exceptions.Exit(INTERRUPTED)

    return StudyCommand(command, _help(spec), study_options(spec))


def _help(spec: StudySpec) -> str:
    objectives = ", ".join(f"{o.metric} ({o.direction})" for o in spec.objectives)
    return (
        f"Study {spec.name}: prune and fine-tune in many ways, keep the best trades of {objectives}.\n\n"
        "Each point of the front is a network under <output>/<name>/models. A study that was cut off goes on "
        "with --resume: no finished trial runs again."
    )

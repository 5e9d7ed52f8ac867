"""For whoever has a GPU for half an hour: dense networks, and fronts beside published ones.

    python benchmarks/gpu.py dense vgg16 --data DIR --output DIR --minutes 25
    python benchmarks/gpu.py study vgg16 --data DIR --output DIR --minutes 25
    python benchmarks/gpu.py study resnet56 --data DIR --output DIR --weights FILE --minutes 25
    python benchmarks/gpu.py dense resnet50 --data DIR --output DIR --minutes 25
    python benchmarks/gpu.py study resnet50 --data DIR --output DIR --minutes 25

First ask it whether it computes what the CPU computes: `python benchmarks/gpu_check.py`. Several trials at
once (`-- --gpus-per-trial 0.25`) compute beside each other only under NVIDIA's MPS
(`nvidia-cuda-mps-control -d`).

Where inputs must travel in parts of a bounded size:

    python benchmarks/gpu.py pack DIR FILE --output PARTS        (here; 55 MB each)
    python benchmarks/gpu.py unpack PARTS --output DIR           (there)

`dense` and `study` end in order after their minutes and go on when they are given again; a study takes the
dense network that `dense` has left in the same output folder, trained for as many epochs. What comes behind
`--` goes to the study script: `-- --trials 100 --finalists 5 --final-epochs 100`. It all runs on a CPU as
well, slowly. The last lines put the result beside the numbers that the methods' own papers and repositories
give; most of those were chosen on the test set, ours on validation.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
from gpu_parts import pack as pack_parts
from gpu_parts import unpack as unpack_parts

from dirprune.cli.errors import run_command
from dirprune.errors import StudyError
from dirprune.evaluation import check_fit
from dirprune.pareto import hypervolume
from dirprune.records.folder import StudyFolder
from dirprune.records.tables import FrontPoint, load_front
from dirprune.study.dense import choose_data, obtain_dense
from dirprune.study.spec import StudySpec
from dirprune.training import TrainingReport

STUDIES = Path(__file__).parents[1] / "studies"
NAMES = ("vgg16", "resnet56", "resnet20", "wrn28_10", "resnet50")
WANTED = {"vgg16": 0.940}
WORST = (1.0, 0.900)
"""The corner of the published hypervolumes: share of the dense network's MACs, accuracy."""
PUBLISHED = {
    "vgg16": {"NNI's best": 0.0292, "CHIP": 0.0294, "OCSPruner": 0.0311, "union of all that we read": 0.0344},
    "resnet56": {"DepGraph": 0.0229, "CHIP": 0.0258, "Meta-graph": 0.0271, "union": 0.0288},
}
SPEED_UPS = (2, 4)


class OverError(Exception):
    """The minutes are over."""


def load_spec(name: str) -> StudySpec:
    """Return what a study script declares."""
    return runpy.run_path(str(STUDIES / f"{name}.py"), run_name="benchmark")["spec"]


def find_name(arguments: Sequence[str]) -> str | None:
    """Return the name that a study script's arguments give the study, if they do."""
    found = None
    for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
        option, equals, value = argument.partition("=")
        if option == "--name":
            found = value if equals else following
    return found


def compare(name: str, points: Sequence[FrontPoint], dense_macs: float) -> str:
    """Say what a front is worth, beside what is published.

    Args:
        name: The study's script.
        points: The front, chosen on validation.
        dense_macs: MACs of the dense network.
    """
    pairs = [(point.metrics["macs"] / dense_macs, point.metrics["test_accuracy"]) for point in points]
    lines = [
        "MACs kept  test accuracy",
        *(f"{100 * kept:8.1f}%  {value:.4f}" for kept, value in sorted(pairs)),
    ]
    losses = [(kept, 1 - accuracy) for kept, accuracy in pairs]
    volume = hypervolume(losses, (WORST[0], 1 - WORST[1])) if losses else 0.0
    lines.append(f"hypervolume to {WORST}: {volume:.4f}")
    lines += [f"  {published:.4f}  {who}" for who, published in PUBLISHED.get(name, {}).items()]
    for speed_up in SPEED_UPS:
        best = max((accuracy for kept, accuracy in pairs if kept <= 1 / speed_up), default=None)
        found = "none" if best is None else f"{best:.4f}"
        lines.append(f"best with {speed_up}x fewer MACs or less: {found}")
    return "\n".join(lines)


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Train dense networks and run studies, some minutes at a time."""


common = (
    click.argument("name", type=click.Choice(NAMES)),
    click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True),
    click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True),
    click.option("--minutes", default=25.0, help="After which it ends in order."),
    click.option("--train-images", type=int, help="Use only so many training images."),
    click.option("--dense-epochs", type=float, help="Of the dense network. Default: the study's."),
)


def with_common(function):
    """Give a command the common options."""
    for decorator in reversed(common):
        function = decorator(function)
    return function


@main.command
@with_common
def dense(
    name: str, data: Path, output: Path, minutes: float, train_images: int | None, dense_epochs: float | None
) -> None:
    """Train a study's dense network, validated on images that it does not see."""
    spec = load_spec(name).changed(train_images=train_images, dense_epochs=dense_epochs)
    choice = choose_data(spec, None)
    roles = spec.load_data(data, choice.validation_from, choice.seed)
    spec = spec.for_classes(roles.n_classes)
    check_fit(spec.create_network(), roles, spec.task())
    began = time.monotonic()

    def listen(report: TrainingReport, n_images: int) -> None:
        said = ", ".join(f"{metric} {value:.4f}" for metric, value in sorted(report.metrics.items()))
        click.echo(f"{100 * report.images / n_images:.1f}%: {said}")
        if time.monotonic() - began > 60 * minutes and not report.is_last:
            raise OverError

    try:
        trained = obtain_dense(spec, roles, choice, output, listen=listen)
    except OverError:
        click.echo("the minutes are over; the same command goes on")
        return
    found = trained.metrics["test_accuracy"]
    wanted = f", {WANTED[name]:.3f} is wanted" if name in WANTED else ""
    click.echo(
        f"{trained.origin}: validation {trained.metrics['val_accuracy']:.4f}, test {found:.4f}{wanted}"
    )


@main.command
@with_common
@click.option("--weights", type=click.Path(exists=True, dir_okay=False), help="Of the dense network.")
@click.argument("more", nargs=-1)
def study(
    name: str,
    data: Path,
    output: Path,
    minutes: float,
    train_images: int | None,
    dense_epochs: float | None,
    weights: str | None,
    more: tuple[str, ...],
) -> None:
    """Run or continue a study and put its front beside published ones."""
    from dirprune.tuning.storage import read_study_json  # needs Optuna, which `dense` does without

    options = {
        "--data": data,
        "--output": output,
        "--weights": weights,
        "--train-images": train_images,
        "--dense-epochs": dense_epochs,
        "--time-limit": f"{60 * minutes:g}",
    }
    given = [text for option, value in options.items() if value is not None for text in (option, str(value))]
    command = [sys.executable, STUDIES / f"{name}.py", *given, "--resume", *more]
    paths = [str(STUDIES.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    status = subprocess.run(command, env=environment).returncode
    folder = StudyFolder(output / (find_name(more) or load_spec(name).name))
    try:
        points = load_front(folder, final=folder.final_front_csv.exists())
    except StudyError:
        raise SystemExit(status) from None
    dense_macs = read_study_json(folder)["dense_costs"]["macs"]
    click.echo("\n" + compare(name, points, dense_macs))
    raise SystemExit(status)


@main.command
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--mb", type=click.FloatRange(min=0.1), default=55.0, help="Largest part, in million bytes.")
def pack(sources: tuple[Path, ...], output: Path, mb: float) -> None:
    """Pack folders and files, such as a data set and weights, into parts with checksums."""
    parts = pack_parts(sources, output, int(1e6 * mb))
    click.echo(f"{len(parts)} parts of at most {mb:g} MB in {output}")


@main.command
@click.argument("parts", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True)
def unpack(parts: Path, output: Path) -> None:
    """Check parts against their checksums and unpack them."""
    for path in unpack_parts(parts, output):
        click.echo(path)


if __name__ == "__main__":
    raise SystemExit(run_command(main))

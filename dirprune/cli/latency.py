"""`dirprune latency` and `dirprune fit-latency`: how long networks take on this machine."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from dirprune.cli.options import check_can_write
from dirprune.cli.output_files import check_output_files
from dirprune.cli.own_network import ask_for_network, find_with_classes, load_own_network
from dirprune.cli.printing import ScoringProgress, format_table
from dirprune.cli.subjects import choose_device, look_for_groups
from dirprune.cost import count_costs
from dirprune.device import is_out_of_memory
from dirprune.errors import ConfigurationError, one_line
from dirprune.files import read_json
from dirprune.latency import Latency, convert_
from dirprune.latency import describe_setting as find_setting
from dirprune.latency import fit_latency as fit
from dirprune.networks import create_network
from dirprune.quiet import device_to_itself
from dirprune.records.folder import StudyFolder
from dirprune.records.known_latencies import DENSE, Found, LatencyCache, find_latencies
from dirprune.records.latency import (
    FINAL,
    SEARCH,
    Timed,
    add_measured,
    name_columns,
    tabulate,
    write_latency_csv,
    write_latency_png,
)
from dirprune.records.models import ARCHITECTURE, SCHEMA, load_dense, load_model
from dirprune.records.tables import load_front
from dirprune.study.latency import check_latency, describe, describe_setting, threads_set_to, write_latency
from dirprune.study.objectives import read_objectives
from dirprune.tuning.storage import read_study_json
from dirprune.turns import count_rounds, measure_in_turns


def find_device(name: str | None) -> str:
    """Return the device to measure on.

    Raises:
        ConfigurationError: If there is none of that name here.
    """
    if name is not None and not (name == "cpu" or (name.startswith("cuda") and torch.cuda.is_available())):
        raise ConfigurationError(f"expected a device of this machine, got {name}; try cpu")
    return choose_device(name)


def make_inputs(batch_size: int, shape: Sequence[int], device: str | None, precision: str) -> Tensor:
    """Return the batch that is timed, on the device to measure on.

    Raises:
        ConfigurationError: If there is no such device here.
    """
    dtype: torch.dtype = getattr(torch, precision)
    return torch.zeros(batch_size, *shape, device=find_device(device), dtype=dtype)


def check_precision(network: nn.Module, inputs: Tensor) -> None:
    """Raise ConfigurationError unless a network computes in the precision of its inputs.

    Args:
        network: On the CPU, in float32 or in that precision; it stays as it is.
        inputs: The batch that is timed, on its device.
    """
    if inputs.dtype == torch.float32:
        return
    try:
        with torch.no_grad():
            convert_(copy.deepcopy(network).eval(), inputs.dtype).to(inputs.device)(inputs[:1])
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigurationError(
            f"expected a network that computes in {str(inputs.dtype).removeprefix('torch.')} on "
            f"{inputs.device}, got {one_line(error, has_type=True)}; try --precision float32"
        ) from error


def latency(
    study: Path,
    batch_size: int,
    threads: int,
    device: str | None,
    precision: str,
    runs: int,
    network: str | None,
) -> None:
    """Measure how long the networks on the fronts of the study in folder STUDY take on this machine."""
    folder = StudyFolder(study)
    points = [(SEARCH, point) for point in load_front(folder)]
    if folder.final_front_csv.exists():
        points += [(FINAL, point) for point in load_front(folder, final=True)]
    if not points:
        raise ConfigurationError(
            f"expected networks on the front of {study}, found none; has it finished trials?"
        )
    check_can_write(folder.root, is_folder=True, option="STUDY")
    payload = read_study_json(folder)
    described = payload["description"].get("network", {})
    own = None if network is None else load_own_network(network, described)
    if own is None and "module" in described:
        raise ask_for_network(payload)
    declared = read_objectives(payload["description"])
    objectives = [objective for objective in declared if objective.metric.startswith("val_")]
    base = points[0][1].model_dir
    shape = read_json(base / ARCHITECTURE, SCHEMA)["input_shape"]
    inputs = make_inputs(batch_size, shape, device, precision)
    dense = load_dense(base, own)
    costs = count_costs(dense, torch.zeros(1, *shape)).as_dict()
    folders = {point.architecture: point.model_dir for _, point in points}  # its weights do not count

    def build(architecture: tuple[int, ...]) -> nn.Module:
        network = copy.deepcopy(dense) if architecture == DENSE else load_model(folders[architecture], own)
        return convert_(network, inputs.dtype)

    found, setting = _find(folder.latencies_json, [DENSE, *folders], build, inputs, threads, runs)
    networks = [
        Timed(None, costs, found.latencies[DENSE]),
        *(
            Timed(point.trial, point.metrics, found.latencies[point.architecture], front)
            for front, point in points
        ),
    ]
    columns, rows = name_columns(objectives), tabulate(networks, objectives)
    write_latency_csv(folder.latency_csv, columns, rows, setting)
    where = describe_setting(setting)
    write_latency_png(folder.latency_png, networks, where)
    add_measured(folder)
    click.echo(f"{where}; median of {runs} passes in {count_rounds(runs)} rounds, and quartiles")
    if line := _describe_known(found, folder.latencies_json):
        click.echo(line)
    click.echo(format_table(columns, [_with_separators(columns, row) for row in rows]))
    if any(row[-1] for row in rows):
        click.echo(
            f"beaten_by: a network that is better in {' or '.join(o.metric for o in objectives)} or latency, "
            "and worse in neither; latencies whose quartiles overlap are equal"
        )
    fronts = [path for path in (folder.front_csv, folder.final_front_csv) if path.exists()]
    click.echo(
        f"\nfiles: {folder.latency_csv}, {folder.latency_png}; the latencies are in "
        f"{' and '.join(map(str, fronts))} too"
    )


def _find(
    path: Path,
    architectures: Sequence[tuple[int, ...]],
    build: Callable[[tuple[int, ...]], nn.Module],
    inputs: Tensor,
    threads: int,
    runs: int,
) -> tuple[Found, Mapping[str, str | int]]:
    """Return what the networks of some architectures take, and the setting in which they do.

    Args:
        path: File of what was measured before.
        architectures: `DENSE` among them.
        build: Returns a network on the CPU.
        inputs: One batch, on the device.
        threads: CPU threads of a pass.
        runs: Passes of each network.
    """
    alone = device_to_itself(inputs.device, threads)
    with threads_set_to(threads), alone, ScoringProgress([], title="measuring") as progress:

        def measure(chosen: Sequence[tuple[int, ...]]) -> list[Latency]:
            networks = []
            for architecture in chosen:
                networks.append(build(architecture))
                progress("networks loaded", len(networks), len(chosen))
            check_precision(networks[0], inputs)
            return measure_in_turns(networks, inputs, runs, partial(progress, "turns"))

        measured = find_setting(inputs)
        cache = LatencyCache(path, {**measured, "passes": runs, "rounds": count_rounds(runs)})
        return find_latencies(architectures, cache, measure), measured


def _describe_known(found: Found, path: Path) -> str:
    """Return in a line what was measured before, and how the device has changed since; empty: nothing was."""
    change = 0.0 if found.pace is None else found.pace - 1
    takes = f"takes {abs(change):.1%} {'less' if change < 0 else 'longer'} than"
    if found.n_known == 0:
        what = f"the dense network {takes} when some were measured before, more than the quartiles allow for"
        return "" if found.pace is None else f"{what}: all were measured again"
    beside = f"; the dense network, timed again beside the others, {takes} then: their quartiles allow for it"
    known = f"{found.n_known} of {len(found.latencies)} were measured before"
    return f"{known}{'' if found.pace is None else beside}; without {path} all are measured again"


def _with_separators(columns: Sequence[str], row: Sequence[str]) -> list[str]:
    """Return a row as people read it: counts as `dirprune front` prints them."""
    return [
        f"{int(cell):,}" if name in ("macs", "parameters") and cell else cell
        for name, cell in zip(columns, row, strict=True)
    ]


def fit_latency(
    network: str,
    input_shape: tuple[int, ...],
    output: Path,
    batch_size: int,
    threads: int,
    device: str | None,
    precision: str,
    architectures: int,
    classes: int | None = None,
) -> None:
    """Measure architectures of a network on this machine, and model the latency of all others."""
    check_output_files({"--output": output})
    dense = create_network(*find_with_classes(network, classes)).eval()
    inputs = make_inputs(batch_size, input_shape, device, precision)
    grouping = look_for_groups(dense, torch.zeros(2, *input_shape))
    grouping.check_any()
    alone = device_to_itself(inputs.device, threads)
    with threads_set_to(threads), alone, ScoringProgress(["architectures for latency"]) as progress:
        check_precision(dense, inputs)
        model = fit(dense.to(inputs.device), grouping, inputs, architectures, progress=progress)
    check_latency(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_latency(output, model)
    click.echo(describe(model))
    click.echo(f"file: {output}; give it to a study with --latency {output}")

"""Where a study's latencies come from: a file, the study as it was started, or measurements here and now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dirprune.cost import CostModel
from dirprune.data import DataRoles
from dirprune.errors import ConfigurationError
from dirprune.files import read_json, write_json
from dirprune.groups import Grouping
from dirprune.latency import LatencyModel, describe_dense, fit_latency
from dirprune.quiet import device_to_itself

SCHEMA = 1
MAX_ERROR = 0.25


@dataclass(frozen=True)
class LatencyOptions:
    """How latencies are found where a study asks for them.

    Attributes:
        path: File of a model that `dirprune fit-latency` measured, on another machine perhaps; None: here.
        batch_size: Inputs of the batch whose latency counts; >= 1. None: as many as those of the file, or of
            the study where it began already; else 1.
        threads: CPU threads of a pass that is measured here; >= 1.

    Raises:
        ConfigurationError: If a number is out of its range.
    """

    path: Path | None = None
    batch_size: int | None = None
    threads: int = 1

    def __post_init__(self) -> None:
        if self.n_inputs < 1 or self.threads < 1:
            raise ConfigurationError(
                f"expected a batch of at least 1 input and at least 1 thread, got {self.n_inputs} and "
                f"{self.threads}; 1 and 1 is what a single request gets"
            )

    @property
    def n_inputs(self) -> int:
        """Inputs of a batch that is measured now."""
        return 1 if self.batch_size is None else self.batch_size


def measure_here(
    network: nn.Module, grouping: Grouping, input_shape: Sequence[int], options: LatencyOptions, device: str
) -> LatencyModel:
    """Measure architectures on a device of this machine.

    Args:
        network: The dense network, on the CPU; left there.
        grouping: Its channel groups.
        input_shape: Of one input.
        options: Batch and threads.
        device: Where trials compute.

    Raises:
        ConfigurationError: If the device is busy.
    """
    inputs = torch.zeros(options.n_inputs, *input_shape, device=device)
    with threads_set_to(options.threads), device_to_itself(device, options.threads):
        model = fit_latency(network.to(device).eval(), grouping, inputs)
    network.to("cpu")
    return model


Measure = Callable[[nn.Module, Grouping, Sequence[int], LatencyOptions], LatencyModel]


def obtain_latency(
    options: LatencyOptions,
    stored: Mapping[str, Any] | None,
    network: nn.Module,
    grouping: Grouping,
    roles: DataRoles,
    say: Callable[[str], None],
    measure: Measure,
) -> LatencyModel:
    """Return how long architectures take: from the file, as the study has it, or measured now.

    Nothing else of the study runs yet, so that the device is as quiet as its other users leave it.

    Args:
        options: Where from.
        stored: The model that the study was started with; None: it is new.
        network: The dense network, on the CPU; its weights do not matter.
        grouping: Its channel groups.
        roles: What one input looks like.
        say: Takes the line that a user should read.
        measure: Measures where trials run, which may be another machine.

    Raises:
        ConfigurationError: If the device is busy, the model says too little of architectures that were not
            measured, all take the same time, or what is there is of another network or of batches of another
            size than were asked for.
    """
    if options.path is not None:
        model = read_latency(options.path)
        example = roles.example_input()
        _check_network(model, describe_dense(CostModel(network, grouping, example), grouping, example))
        _check_batch(model, options, f"in {options.path}", "measure those with dirprune fit-latency")
    elif stored is not None:
        model = LatencyModel.from_json(stored)
        _check_batch(model, options, "in this study, which began with them", "choose another --name")
        return model
    else:
        model = measure(network, grouping, roles.input_shape, options)
    check_latency(model)
    say(describe(model))
    return model


def check_latency(model: LatencyModel) -> None:
    """Raise ConfigurationError unless a model predicts what it has not seen, and falls with the widths."""
    if not model.error <= MAX_ERROR:
        raise ConfigurationError(
            f"expected latencies within {MAX_ERROR:.0%} of the model on architectures that it has not seen, "
            f"got {model.error:.0%}; is the device busy? end what else runs there, or take a larger batch"
        )
    if not any(rate > 0 for rate in model.rates_ms):
        raise ConfigurationError(
            f"expected latencies that fall with the widths, got {model.constant_ms:.3g} ms for every "
            "architecture: calling the layers takes all the time; take a larger batch, or the objective macs"
        )


def _check_network(model: LatencyModel, wanted: Mapping[str, str | int]) -> None:
    """Refuse latencies of another network; older files do not say of which they are."""
    for name, value in wanted.items():
        if model.setting.get(name, value) != value:
            raise ConfigurationError(
                f"expected latencies of this network, whose {name} is {value}, got those of one with "
                f"{model.setting[name]}; measure it with dirprune fit-latency"
            )


def _check_batch(model: LatencyModel, options: LatencyOptions, where: str, advice: str) -> None:
    """Refuse latencies of batches of another size than were asked for, if any were."""
    known = model.setting.get("batch_size", options.batch_size)
    if options.batch_size not in (None, known):
        raise ConfigurationError(
            f"expected latencies of batches of {options.batch_size}, got those of batches of {known} "
            f"{where}; leave --latency-batch out, or {advice}"
        )


def describe(model: LatencyModel) -> str:
    """Return in one line what the latencies are and how far they can be trusted."""
    return (
        f"latency: {describe_setting(model.setting)}; modelled, within {model.error:.1%} (median) of "
        "architectures that the model has not seen"
    )


def describe_setting(setting: Mapping[str, str | int]) -> str:
    """Return in words what was measured where."""
    threads = "" if str(setting["device"]).startswith("cuda") else f", threads: {setting['threads']}"
    return (
        f"batches of {setting['batch_size']} in {setting['precision']} on {setting['device']} "
        f"({setting['processor']}){threads}, torch {setting['torch']}"
    )


def write_latency(path: Path, model: LatencyModel) -> None:
    """Store a model for `LatencyOptions.path`."""
    write_json(path, {"latency": model.to_json()}, SCHEMA)


def read_latency(path: Path) -> LatencyModel:
    """Read what `write_latency` wrote.

    Raises:
        ConfigurationError: If the file holds no latencies.
    """
    payload = read_json(path, SCHEMA).get("latency")
    try:
        return LatencyModel.from_json(payload)  # type: ignore[arg-type]  # what is not a mapping is refused
    except (TypeError, KeyError):
        raise ConfigurationError(
            f"expected latencies in {path}, found none; dirprune fit-latency --output {path} measures them"
        ) from None


@contextmanager
def threads_set_to(n_threads: int) -> Iterator[None]:
    """Let torch use so many threads on the CPU for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

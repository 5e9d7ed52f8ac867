"""How long a network takes here: measured, and modelled for architectures that nobody has built."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dirprune.cost import CostModel
from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.layers import modes_restored
from dirprune.surgery import compact

LEAST_KEPT = 0.1
"""The smallest keep ratio of the architectures that are measured."""
MAX_SPREAD = 0.25
"""Half of the passes lie within this share of the median, or the device is called busy."""
WARM_UP_S = 0.5
"""How long a GPU computes before its passes count: its clocks rise from idle meanwhile."""
HALVES = (torch.bfloat16, torch.float16)
"""Precisions in which a network in float32 can be timed as well."""
N_TRIES = 5
N_FOLDS = 5


@dataclass(frozen=True)
class Latency:
    """Wall time of one batch in evaluation mode.

    Attributes:
        median_ms: Median of the timed passes.
        low_ms: Their first quartile.
        high_ms: Their third quartile.
    """

    median_ms: float
    low_ms: float
    high_ms: float

    @property
    def spread(self) -> float:
        """Distance between the quartiles as a share of the median."""
        return (self.high_ms - self.low_ms) / self.median_ms

    @property
    def is_steady(self) -> bool:
        """Whether the spread is at most `MAX_SPREAD`."""
        return self.spread <= MAX_SPREAD


@dataclass(frozen=True)
class LatencyModel:
    """Latency of any architecture of one network on one machine, as a function of its MACs.

    Attributes:
        constant_ms: Of a network without any channel.
        rates_ms: Milliseconds per MAC of the layers in which the same two groups meet, in the order of
            `CostModel.macs_by_pair`; >= 0, so that a channel less never makes a network slower.
        error: Median relative error on measured architectures that the fit had not seen.
        setting: What was measured where: see `describe_setting`.
    """

    constant_ms: float
    rates_ms: tuple[float, ...]
    error: float
    setting: Mapping[str, str | int]

    def to_json(self) -> dict[str, Any]:
        """Return the model as plain data."""
        return {**asdict(self), "rates_ms": list(self.rates_ms)}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> LatencyModel:
        """Rebuild a model from `to_json`."""
        return cls(**{**payload, "rates_ms": tuple(payload["rates_ms"])})


def describe_machine(device: str | torch.device) -> list[str | int]:
    """Return what latencies on a device belong to: the machine, the device and the threads."""
    is_cuda = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else name_processor()
    return [platform.node(), str(device), name, torch.get_num_threads()]


def name_processor() -> str:
    """Return the model of this machine's processor, or its kind where the system does not tell the model."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_setting(inputs: Tensor) -> dict[str, str | int]:
    """Return all that a latency depends on beside the architecture: machine, batch, precision and library."""
    machine, device, name, threads = describe_machine(inputs.device)
    return {
        "machine": machine,
        "device": device,
        "processor": name,
        "threads": threads,
        "batch_size": len(inputs),
        "precision": str(inputs.dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def convert_(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Let a network in float32 compute in another precision, and return it; other numbers stay."""
    return network._apply(lambda tensor: tensor.to(dtype) if tensor.dtype == torch.float32 else tensor)


@torch.no_grad()
def measure_latency(network: nn.Module, inputs: Tensor, n_runs: int = 20, n_warm_up: int = 3) -> Latency:
    """Time passes of a network in evaluation mode.

    Args:
        network: On the device of the inputs.
        inputs: One batch, shape (batch, ...).
        n_runs: Passes that are timed; >= 2.
        n_warm_up: Passes before them, which are not; on a GPU as many more as take `WARM_UP_S`.
    """

    with modes_restored(network):
        network.eval()
        warm_up(partial(time_pass, network, inputs), n_warm_up, WARM_UP_S if inputs.is_cuda else 0.0)
        return summarise_passes([time_pass(network, inputs) for _ in range(n_runs)])


def time_pass(network: nn.Module, inputs: Tensor, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return how long one pass takes, in ms.

    Args:
        network: On the device of the inputs.
        inputs: One batch, shape (batch, ...).
        clock: Returns seconds.
    """
    began = clock()
    network(inputs)
    if inputs.is_cuda:
        torch.cuda.synchronize(inputs.device)
    return 1000 * (clock() - began)


def summarise_passes(passes_ms: Sequence[float]) -> Latency:
    """Return the median and the quartiles of at least two passes, in ms."""
    low, median, high = statistics.quantiles(passes_ms, n=4, method="inclusive")
    return Latency(median, low, high)


def warm_up(run: Callable[[], object], n_runs: int, least_s: float) -> None:
    """Run something a number of times, and again until so many seconds have passed."""
    began = time.perf_counter()
    n_done = 0
    while n_done < n_runs or time.perf_counter() - began < least_s:
        run()
        n_done += 1


def measure_quietly(network: nn.Module, inputs: Tensor, n_runs: int = 20) -> Latency:
    """Time passes of a network again until the device is quiet enough to say how long one takes.

    Raises:
        ConfigurationError: If it never is.
    """
    tries = []
    for _ in range(N_TRIES):
        tries.append(measure_latency(network, inputs, n_runs))
        if tries[-1].is_steady:
            return tries[-1]
    raise busy_device(min(tries, key=lambda latency: latency.spread), inputs)


def busy_device(latency: Latency, inputs: Tensor) -> ConfigurationError:
    """Return the error that says which passes differ too much for a latency.

    Args:
        latency: Of passes whose spread is above `MAX_SPREAD`.
        inputs: The batch, on the device.
    """
    return ConfigurationError(
        f"expected a quiet device, got passes of {latency.low_ms:.3g} to {latency.high_ms:.3g} ms "
        f"(quartiles) on {inputs.device}{_describe_load(inputs)}; end what else runs there"
    )


def _describe_load(inputs: Tensor) -> str:
    if inputs.is_cuda or not hasattr(os, "getloadavg"):
        return ""
    return f" with a load of {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def fit_latency(
    network: nn.Module,
    grouping: Grouping,
    inputs: Tensor,
    n_measured: int = 40,
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    measure: Callable[[nn.Module, Tensor], Latency] = measure_quietly,
) -> LatencyModel:
    """Build and measure a few random architectures and fit the latency of all others to them.

    Least squares of the relative errors; half of the measurements are on small networks.

    Args:
        network: The uncut network, on the device that counts.
        grouping: Its channel groups.
        inputs: The batch whose latency counts, shape (batch, ...), on the same device. Of a network in
            float32 it may be in one of `HALVES`, in which it is timed then.
        n_measured: Architectures that are built and measured; >= 2.
        seed: Of the random architectures; the measurements themselves are never the same twice.
        progress: Told how many have been measured.
        measure: Times a network; `measure_latency` where a busy device shall not matter.

    Raises:
        ConfigurationError: If the device is busy; see `measure_quietly`.
    """
    from sklearn.linear_model import LinearRegression  # seconds to import: only where they are needed
    from sklearn.model_selection import KFold, cross_val_predict

    is_own = any(parameter.dtype == inputs.dtype for parameter in network.parameters())
    example = inputs[:1].float() if inputs.dtype in HALVES and not is_own else inputs[:1]
    costs = CostModel(network, grouping, example)
    rng = np.random.default_rng(seed)
    macs, latencies = [], []
    for number in range(n_measured):
        highest = 1.0 if number % 2 else 0.5
        kept = {
            name: sorted(rng.permutation(n)[: _draw_width(rng, n, highest)].tolist())
            for name, n in grouping.n_channels.items()
        }
        small = compact(network, grouping, kept, example)
        if inputs.dtype in HALVES:
            convert_(small, inputs.dtype)
        architecture = {name: len(channels) for name, channels in kept.items()}
        macs.append([1.0, *costs.macs_by_pair(architecture)])
        latencies.append(measure(small, inputs).median_ms)
        if progress is not None:
            progress("architectures for latency", number + 1, n_measured)
    scale = np.max(macs, axis=0)
    features, measured = np.array(macs) / scale, np.array(latencies)
    regression = LinearRegression(positive=True, fit_intercept=False)
    error = math.nan
    if n_measured >= 2 * N_FOLDS:
        predicted = cross_val_predict(
            regression, features, measured, cv=KFold(N_FOLDS), params={"sample_weight": measured**-2.0}
        )
        error = float(np.median(np.abs(predicted / measured - 1)))
    regression.fit(features, measured, sample_weight=measured**-2.0)
    constant, *rates = (regression.coef_ / scale).tolist()
    setting = {**describe_setting(inputs), **describe_dense(costs, grouping, inputs)}
    return LatencyModel(constant, tuple(rates), error, setting)


def describe_dense(costs: CostModel, grouping: Grouping, inputs: Tensor) -> dict[str, str | int]:
    """Return what tells a whole network from others: the shape of an input, and its multiply-accumulates."""
    shape = " x ".join(map(str, inputs.shape[1:]))
    return {"input_shape": shape, "dense_macs": costs.costs(grouping.n_channels).macs}


def _draw_width(rng: np.random.Generator, n_channels: int, highest: float) -> int:
    return max(1, round(n_channels * rng.uniform(LEAST_KEPT, highest)))

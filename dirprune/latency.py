"""How long a network takes here: measured, and modelled for architectures that nobody has built."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from torch import Tensor, nn

from dirprune.cost import CostModel
from dirprune.groups import Grouping
from dirprune.layers import modes_restored
from dirprune.surgery import compact

LEAST_KEPT = 0.1
"""The smallest keep ratio of the architectures that are measured."""


def describe_machine(device: str | torch.device) -> list[str | int]:
    """Return what latencies on a device belong to: the machine, the device and the threads."""
    is_cuda = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else platform.processor() or platform.machine()
    return [platform.node(), str(device), name, torch.get_num_threads()]


@torch.no_grad()
def measure_latency_ms(network: nn.Module, inputs: Tensor, n_runs: int = 20) -> float:
    """Return the median wall time of one pass in evaluation mode, in milliseconds; the first is not counted.

    Args:
        network: On the device of the inputs.
        inputs: One batch, shape (batch, ...).
        n_runs: Passes that are timed; >= 1.
    """

    def run() -> float:
        began = time.perf_counter()
        network(inputs)
        if inputs.is_cuda:
            torch.cuda.synchronize(inputs.device)
        return 1000 * (time.perf_counter() - began)

    with modes_restored(network):
        network.eval()
        run()
        return statistics.median(run() for _ in range(n_runs))


class LatencyModel:
    """Latency of any architecture, from a few random ones that are built and measured.

    A constant plus, for each pair of groups that meet in layers, a rate times the MACs of these layers; rates
    are not negative, so that a channel less never makes a network slower. Fitted by least squares to the
    relative errors, half of the measurements on small networks.

    Args:
        network: The uncut network, on the device that counts.
        grouping: Its channel groups.
        inputs: The batch whose latency counts, shape (batch, ...), on the same device.
        n_measured: Architectures that are built and measured; >= 2.
        seed: Of the random architectures; the measurements themselves are never the same twice.
    """

    def __init__(
        self, network: nn.Module, grouping: Grouping, inputs: Tensor, n_measured: int = 40, seed: int = 0
    ) -> None:
        self.costs = CostModel(network, grouping, inputs)
        rng = np.random.default_rng(seed)
        macs, latencies = [], []
        for number in range(n_measured):
            highest = 1.0 if number % 2 else 0.5
            kept = {
                name: sorted(rng.permutation(n)[: _draw_width(rng, n, highest)].tolist())
                for name, n in grouping.n_channels.items()
            }
            small = compact(network, grouping, kept, inputs)
            macs.append(self._features({name: len(channels) for name, channels in kept.items()}))
            latencies.append(measure_latency_ms(small, inputs))
        self.scale = np.max(macs, axis=0)
        measured = np.array(latencies)
        regression = LinearRegression(positive=True, fit_intercept=False)
        self.regression = regression.fit(np.array(macs) / self.scale, measured, sample_weight=measured**-2.0)

    def _features(self, architecture: Mapping[str, int]) -> NDArray[np.float64]:
        return np.array([1.0, *self.costs.macs_by_pair(architecture)])

    def latency_ms(self, architecture: Mapping[str, int]) -> float:
        """Return the latency of an architecture in milliseconds.

        Raises:
            ArchitectureError: If a group is missing or unknown or its number of channels is out of range.
        """
        features = self._features(architecture) / self.scale
        return float(self.regression.predict(features[None])[0])


def _draw_width(rng: np.random.Generator, n_channels: int, highest: float) -> int:
    return max(1, round(n_channels * rng.uniform(LEAST_KEPT, highest)))

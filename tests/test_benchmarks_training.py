"""The benchmarks of training at their smallest: both sides of a comparison are what they are said to be."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from dirprune.architecture import Architecture
from dirprune.networks import create_network
from dirprune.records.tables import FrontPoint
from dirprune.surgery import compact
from dirprune.tracing import find_groups

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("throughput", "gpu")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    """The scripts, imported as the command line does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield {name: __import__(name) for name in NAMES}
    for name in NAMES:
        del sys.modules[name]


def test_masked_networks_stay_masked_while_they_train(modules: dict[str, ModuleType]) -> None:
    throughput = modules["throughput"]
    dense = create_network("lenet5", seed=0).eval()
    example = torch.rand(4, 1, 28, 28)
    grouping = find_groups(dense, example)
    kept = {name: list(range(n)) for name, n in Architecture.uniform(grouping, 0.5).items()}
    small = compact(dense, grouping, kept, example)
    step = throughput.make_step(
        dense, example, torch.tensor([1, 2, 3, 4]), throughput.mask_(dense, grouping, kept)
    )
    small_step = throughput.make_step(small, example, torch.tensor([1, 2, 3, 4]), [])
    for _ in range(3):
        step()
        small_step()
    torch.testing.assert_close(dense.eval()(example), small.eval()(example), atol=1e-4, rtol=1e-4)
    assert dense.conv1.weight[5:].abs().max() == 0


def test_throughput_is_measured_once_and_tabulated(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    arguments = ["--output", str(tmp_path / "rows.jsonl"), "--networks", "lenet5", "--keep-ratios", "0.5"]
    arguments += ["--batch-size", "2", "--repetitions", "2"]
    first, second = (
        CliRunner().invoke(modules["throughput"].main, arguments, catch_exceptions=False) for _ in range(2)
    )
    assert first.exit_code == 0
    assert "| lenet5 | 0.5 | 32.2% |" in first.stdout
    assert second.stdout == first.stdout


def test_a_front_is_put_beside_published_ones(modules: dict[str, ModuleType]) -> None:
    points = [
        FrontPoint(n, "sampler", "random", (1,), {}, {"macs": macs, "test_accuracy": accuracy}, Path())
        for n, (macs, accuracy) in enumerate([(50, 0.94), (20, 0.92), (10, 0.85)])
    ]
    said = modules["gpu"].compare("vgg16", points, 100)
    assert "hypervolume to (1.0, 0.9): 0.0260" in said  # 0.5 x 0.04 + 0.3 x 0.02
    assert "0.0344  union" in said
    assert "best with 2x fewer MACs or less: 0.9400" in said
    assert "best with 4x fewer MACs or less: 0.9200" in said

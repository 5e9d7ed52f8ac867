"""The benchmarks of training at their smallest: both sides of a comparison are what they are said to be."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEventAvg

from dirprune.architecture import Architecture
from dirprune.cli.errors import run_command
from dirprune.networks import create_network
from dirprune.records.tables import FrontPoint
from dirprune.surgery import compact
from dirprune.tracing import find_groups

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("throughput", "gpu", "gpu_parts", "training_limit", "importance_common")


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


@pytest.mark.slow
def test_throughput_is_measured_once_and_tabulated(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    arguments = ["--output", str(tmp_path / "rows.jsonl"), "--networks", "lenet5", "--keep-ratios", "0.5"]
    arguments += ["--batch-size", "2", "--repetitions", "2"]
    first, second = (
        CliRunner().invoke(modules["throughput"].main, arguments, catch_exceptions=False) for _ in range(2)
    )
    assert first.exit_code == 0
    assert "| lenet5 | 0.5 | 32.2% |" in first.stdout
    assert second.stdout == first.stdout


def test_kernels_are_counted_once_with_the_operations_that_started_them(
    modules: dict[str, ModuleType],
) -> None:
    rows = (
        ("aten::convolution", DeviceType.CPU, 30.0),
        ("implicit_convolve_sgemm", DeviceType.CUDA, 30.0),
        ("aten::relu_", DeviceType.CPU, 10.0),
        ("vectorized_elementwise_kernel", DeviceType.CUDA, 10.0),
    )
    events = []
    for key, device_type, taken_us in rows:
        event = FunctionEventAvg()
        event.key, event.device_type, event.self_device_time_total = key, device_type, taken_us
        events.append(event)
    module = modules["training_limit"]
    shares = module.find_shares(module.sum_times(events, "cuda"))
    assert {part: share for part, share in shares.items() if share} == {"convolutions": 0.75, "ReLU": 0.25}


@pytest.mark.slow
def test_training_is_put_beside_the_fastest_matrix_product(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = modules["training_limit"]
    monkeypatch.setattr(module, "SIDES", (64,))
    monkeypatch.setattr(module, "LEAST_S", 0.01)
    arguments = ["--output", str(tmp_path / "rows.jsonl"), "--keep-ratios", "0.25", "--images", "40"]
    arguments += ["--repetitions", "2"]
    first, second = (CliRunner().invoke(module.main, arguments, catch_exceptions=False) for _ in range(2))
    assert first.exit_code == 0
    assert first.stdout == second.stdout
    assert "convolutions" in first.stdout
    (row,) = module.Rows(tmp_path / "rows.jsonl")
    assert row["macs_of_a_step"] == 3 * 10_470_016 + 40_551_040
    assert sum(row["shares"].values()) == pytest.approx(1)
    assert row["shares"]["convolutions"] > 0.1
    assert row["shares"][module.OTHER] < 0.5


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


def write_inputs(folder: Path) -> tuple[Path, Path]:
    """Write a folder with a link in it, and a file that does not compress."""
    data, weights = folder / "cifar", folder / "weights.th"
    (data / "train" / "cat").mkdir(parents=True)
    (data / "train" / "cat" / "1.webp").write_bytes(b"cat")
    (data / "test").symlink_to(data / "train")
    weights.write_bytes(random.Random(0).randbytes(350_000))
    return data, weights


def test_what_is_packed_into_small_parts_comes_out_the_same(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, weights = write_inputs(tmp_path)
    parts, there = tmp_path / "parts", tmp_path / "there"
    main = modules["gpu"].main
    assert run_command(main, ["pack", str(data), str(weights), "--output", str(parts), "--mb", "0.1"]) == 0
    sizes = [path.stat().st_size for path in sorted(parts.glob("part-*"))]
    assert len(sizes) == 4
    assert max(sizes) <= 100_000
    assert capsys.readouterr().out.startswith("4 parts")
    assert run_command(main, ["unpack", str(parts), "--output", str(there)]) == 0
    assert capsys.readouterr().out.split() == [str(there / "cifar"), str(there / "weights.th")]
    assert (there / "weights.th").read_bytes() == weights.read_bytes()
    assert (there / "cifar" / "test" / "cat" / "1.webp").read_bytes() == b"cat"
    assert not (there / "cifar" / "test").is_symlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda part: part.unlink(), "part-0001 as it was packed, got none; send it again"),
        (lambda part: part.write_bytes(part.read_bytes()[:-1] + b"?"), "got a damaged one; send it again"),
        (lambda part: (part.parent / "SHA256SUMS").unlink(), "found no SHA256SUMS; was packing cut off?"),
    ],
)
def test_parts_that_did_not_arrive_whole_are_named_and_nothing_is_unpacked(
    modules: dict[str, ModuleType],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    harm: Callable[[Path], object],
    message: str,
) -> None:
    parts = tmp_path / "parts"
    main = modules["gpu"].main
    run_command(main, ["pack", *map(str, write_inputs(tmp_path)), "--output", str(parts), "--mb", "0.1"])
    harm(parts / "part-0001")
    assert run_command(main, ["unpack", str(parts), "--output", str(tmp_path / "there")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "there").exists()


def test_inputs_are_packed_neither_over_others_nor_twice_under_one_name(
    modules: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, weights = write_inputs(tmp_path)
    main = modules["gpu"].main
    assert run_command(main, ["pack", str(weights), "--output", str(tmp_path / "cifar")]) == 2
    assert "expected an empty folder for the parts" in capsys.readouterr().err
    other = tmp_path / "cifar" / "weights.th"
    other.write_bytes(b"")
    assert run_command(main, ["pack", str(weights), str(other), "--output", str(tmp_path / "parts")]) == 2
    assert "got two of 'weights.th'" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_of_another_device_precision_or_batch_size_are_not_taken_for_done(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"network": "lenet5", "keep_ratio": 0.5, "macs_kept": 0.3, "batch_size": 2, '
        '"device": "NVIDIA H100", "threads": 1, "rates": [[2, 1]]}\n'
    )
    arguments = ["--output", str(path), "--networks", "lenet5", "--keep-ratios", "0.5", "--repetitions", "1"]
    for more, n_rows in (
        (["--batch-size", "2"], 2),
        (["--batch-size", "2"], 2),
        (["--batch-size", "3"], 3),
        (["--batch-size", "2", "--precision", "bfloat16"], 4),
    ):
        CliRunner().invoke(modules["throughput"].main, [*arguments, *more], catch_exceptions=False)
        assert len(path.read_text().splitlines()) == n_rows


def test_keys_that_do_not_name_a_device_are_of_the_cpu(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": {"group": "conv1"}, "values": {}}\n')
    rows = modules["importance_common"].Rows(path, {"device": "cpu"})
    assert rows.is_done(group="conv1", device="cpu")
    assert not rows.is_done(group="conv1", device="cuda")
    assert [row["device"] for row in rows] == ["cpu"]


def test_batch_norm_of_cudnn_is_no_convolution_and_named_spans_are_no_kernels(
    modules: dict[str, ModuleType],
) -> None:
    module = modules["training_limit"]
    times = {"aten::cudnn_batch_norm": 1.0, "aten::cudnn_convolution": 3.0}
    shares = module.find_shares(times)
    assert (shares["batch norm"], shares["convolutions"]) == (0.25, 0.75)
    events = []
    for is_span, taken_us in ((False, 5.0), (False, 7.0), (True, 100.0)):
        event = FunctionEventAvg()
        event.key, event.device_type, event.self_device_time_total = "kernel", DeviceType.CUDA, taken_us
        event.is_user_annotation = is_span
        events.append(event)
    assert module.sum_kernels(events) == 12


@pytest.mark.slow
def test_few_steps_are_profiled_and_precision_is_of_the_row(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = modules["training_limit"]
    monkeypatch.setattr(module, "SIDES", (64,))
    monkeypatch.setattr(module, "LEAST_S", 0.01)
    monkeypatch.setattr(module, "N_PROFILED", 2)
    seen = []
    train = module.train
    monkeypatch.setattr(module, "train", lambda *rest: seen.append(rest[3].images) or train(*rest))
    arguments = ["--output", str(tmp_path / "rows.jsonl"), "--keep-ratios", "0.25", "--images", "40"]
    arguments += ["--repetitions", "1", "--batch-size", "8"]
    for precision in ("float32", "bfloat16"):
        more = [*arguments, "--precision", precision]
        result = CliRunner().invoke(module.main, more, catch_exceptions=False)
        assert result.exit_code == 0
    assert seen == 2 * [16, 40, 16]
    rows = list(module.Rows(tmp_path / "rows.jsonl"))
    assert [(row["precision"], row["batch_size"]) for row in rows] == [("float32", 8), ("bfloat16", 8)]
    assert all(row.keys().isdisjoint({"kernel_s", "rates_asked"}) for row in rows)

"""A user's mistake: one line on stderr that names it, exit status 2, no traceback, nothing written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dirprune.cli.own_network import find_in_file
from dirprune.cli.weights import Header, write_weights
from dirprune.identity import identify
from dirprune.networks import LeNet5, create_network, load_weights_, save_weights
from dirprune.records.models import save_model
from tests.cli.conftest import Result, Run

SRC = Path(__file__).parent.parent.parent


def check_one_line(result: Result, *fragments: str) -> None:
    assert result.status == 2, result
    assert result.errors.endswith("\n")
    *progress, said = result.errors.splitlines()  # on a slow machine there is time for progress
    assert all(line.startswith(("scoring: ", "looking: ")) for line in progress), result.errors
    assert said.startswith("error: ")
    assert "Traceback" not in result.errors + result.output
    for fragment in fragments:
        assert fragment in result.errors


def list_files() -> list[Path]:
    """Return everything in the working folder of the test."""
    return sorted(Path().rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["prun"], ["unknown command 'prun'", "did you mean 'prune'?"]),
        (
            ["quantise"],
            [
                "unknown command 'quantise'",
                "known: abandon, compare, covariances, doctor, explain, export, fit-latency, front",
            ],
        ),
        (["train", "--epoch", "3"], ["unknown option '--epoch'", "did you mean '--epochs'?"]),
        (["train", "surplus"], ["surplus", "try 'dirprune train --help'"]),
        (["train", "--epochs"], ["--epochs", "requires an argument"]),
        (["train", "--epochs", "many"], ["--epochs", "expected a number above 0, got 'many'"]),
        (["train", "--epochs", "0"], ["--epochs", "above 0, got '0'"]),
        (["train", "--epochs", "nan"], ["--epochs", "got 'nan'"]),
        (["train", "--early-stopping", "0"], ["--early-stopping", "at least 1, got '0'"]),
        (["train", "--early-stopping", "2.5"], ["--early-stopping", "a whole number", "got '2.5'"]),
        (["train", "--seed", "-1"], ["--seed", "at least 0, got '-1'"]),
        (["train", "--train-images", "0"], ["--train-images", "at least 1, got '0'"]),
        (["train", "--network", "lenet"], ["unknown network 'lenet'", "did you mean 'lenet5'?"]),
        (["train", "--network", "resnet56"], ["accepts inputs of shape (2, 1, 28, 28)", "RuntimeError"]),
        (["train", "--dataset", "digit"], ["unknown data set 'digit'", "did you mean 'digits'?"]),
        (["train", "--dataset", "digits", "--data", "."], ["digits", "no --data"]),
        (["train", "--validation-from", "tset:0.5"], ["tset", "test"]),
        (["train", "--validation-from", "test:1.5"], ["1.5"]),
        (["train", "--device", "abacus"], ["'abacus'", "--device cpu"]),
        (["train", "--output", "weights.pt"], [".safetensors", "weights.pt"]),
        (["train", "--data", "nowhere"], ["nowhere"]),
        (["rank", "--method", "random"], ["--weights FILE"]),
        (["rank", "--list", "magn"], ["no importance method matches 'magn'", "did you mean 'magnitude'?"]),
        (["rank", "--weights", "w.safetensors"], ["--method NAME"]),
        (["rank", "--method", "random", "--weights", "w.safetensors"], ["weights file", "w.safetensors"]),
        (["prune", "--method", "random", "--arch", "1,1,1,1"], ["--weights", "got nothing"]),
        (["prune", "--weights", "w.safetensors", "--method", "random"], ["--arch", "got nothing"]),
        (["retrain"], ["FILE", "got nothing"]),
        (["retrain", "nowhere"], ["nowhere", "is the path right?"]),
        (["front", "nowhere"], ["nowhere", "study.json"]),
        (["abandon", "nowhere"], ["nowhere", "study.json"]),
    ],
)
def test_bad_arguments_end_in_one_line(run: Run, arguments: list[str], fragments: list[str]) -> None:
    check_one_line(run(*arguments), *fragments)
    assert list_files() == []


@pytest.mark.parametrize(
    ("arch", "fragments"),
    [
        ("8,9,36", ["expected 4 numbers", "conv1 (10), conv2 (20), linear1 (100), linear2 (25)", "got 3"]),
        ("8,9,36,17,10", ["expected 4 numbers", "got 5"]),
        ("0,9,36,17", ["conv1", "1..10", "got 0"]),
        ("8,-9,36,17", ["conv2", "1..20", "got -9"]),
        ("8,9,101,17", ["linear1", "1..100", "got 101"]),
        ("8,9,36,many", ["whole numbers", "'many'"]),
        ("8,9,3.5,17", ["whole numbers", "'3.5'"]),
        ("", ["expected 4 numbers"]),
    ],
)
def test_bad_architectures_end_in_one_line(run: Run, weights: Path, arch: str, fragments: list[str]) -> None:
    check_one_line(run("prune", "--weights", weights, "--method", "random", "--arch", arch), *fragments)
    assert list_files() == []


@pytest.mark.parametrize("command", [["rank"], ["prune", "--arch", "8,9,36,17"]])
@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--method", "magnitud"], ["unknown importance method 'magnitud'", "did you mean 'magnitude'?"]),
        (
            ["--method", "magnitude", "--method-options", "nrom=l2"],
            ["unknown option 'nrom'", "did you mean 'norm'?"],
        ),
        (["--method", "magnitude", "--method-options", "norm=l3"], ["norm", "'l3'"]),
        (["--method", "magnitude", "--method-options", "norm"], ["key=value", "'norm'"]),
        (["--method", "taylor", "--method-options", "batch_size=ten"], ["batch_size", "'ten'"]),
        (["--method", "magnitude"] + ["--method-options", "norm=l2"] * 2, ["once", "norm=l2"]),
        (["--method", "fisher", "--evaluations", "9"], ["unknown option 'evaluations'", "known: batch_size"]),
        (
            ["--method", "shapley", "--evaluations", "many"],
            ["evaluations", "whole number", "'auto'", "'many'"],
        ),
        (["--method", "shapley-ols", "--evaluations", "auto"], ["evaluations", "'auto'"]),
        (["--method", "shapley-partial", "--k", "0"], ["k must be at least 1", "got 0"]),
        (["--method", "shapley-partial", "--k", "two"], ["'k'", "a whole number", "'two'"]),
        (["--method", "shapley-partial", "--adding", "maybe"], ["adding", "'maybe'", "'both'"]),
        (["--method", "dirichlet", "--statistic", "sdn"], ["statistic", "'sdn'", "did you mean 'snr'?"]),
        (
            ["--method", "dirichlet", "--statistic", "snr", "--method-options", "statistic=mean"],
            ["once", "statistic=mean", "statistic=snr"],
        ),
    ],
)
def test_bad_methods_end_in_one_line(
    run: Run, weights: Path, command: list[str], arguments: list[str], fragments: list[str]
) -> None:
    check_one_line(run(*command, "--weights", weights, *arguments), *fragments)
    assert list_files() == []


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["shapley", "--evaluations", "30"], ["at least 102", "a group of 100 channels", "got 30"]),
        (["shapley-permutation", "--evaluations", "50"], ["at least", "100 channels", "got 50"]),
        (["shapley-kernel", "--evaluations", "199"], ["at least 200", "100 channels", "got 199"]),
        (["shapley", "--evaluations", "0"], ["at least 12", "a group of 10 channels", "got 0"]),
        (["shapley", "--evaluations", str(10**19)], ["at most 1,048,576", "got 10,000,000,000,000,000,000"]),
        (["shapley-shap", "--evaluations", "201"], ["at least 202", "100 channels", "got 201"]),
        (["shapley-exact"], ["at most 20 channels, got 100", "2^100 = 1.3e+30", "try method shapley"]),
        (["shapley-partial", "--k", "11"], ["k must be in 1 .. 10 for a group of 10 channels", "got 11"]),
        (["shapley-partial", "--k", "9"], ["k", "got 9", "of 100 channels", "a smaller k"]),
    ],
)
def test_options_that_do_not_fit_a_group_are_refused_before_any_is_worked_on(
    run: Run, weights: Path, arguments: list[str], fragments: list[str]
) -> None:
    check_one_line(run("rank", "--weights", weights, "--method", *arguments), *fragments)
    assert not list(Path("output/scores").rglob("*.jsonl"))


def test_weights_that_are_not_a_number_end_in_one_line(run: Run, weights: Path, tmp_path: Path) -> None:
    network = LeNet5()
    load_weights_(network, weights)
    network.conv1.weight.data[1, 0, 2, 2] = torch.nan
    torch.save(network.state_dict(), tmp_path / "nan.pt")
    result = run("rank", "--weights", tmp_path / "nan.pt", "--method", "magnitude")
    check_one_line(result, "expected weights of LeNet5 that are finite", "conv1.weight")


@pytest.mark.parametrize("method", ["leave-one-out", "shapley-shap", "dirichlet"])
def test_outputs_that_are_not_a_number_end_in_one_line(
    run: Run, weights: Path, tmp_path: Path, method: str
) -> None:
    network = LeNet5()
    load_weights_(network, weights)
    network.conv1.weight.data.fill_(3e38)
    torch.save(network.state_dict(), tmp_path / "nan.pt")
    arguments = ["--weights", tmp_path / "nan.pt", "--method", method, "--train-images", 100]
    result = run("rank", *arguments)
    check_one_line(result, "finite", "look for NaN in weights and calibration inputs")
    assert "fail" not in result.output  # shap prints of errors of its own accord
    assert not list(Path("output/scores").glob("*.safetensors"))


OWN_NETWORKS = """
from torch import nn

def build(n_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 6), nn.ReLU(), nn.Linear(6, n_outputs))

def few():
    return build(5)

def many():
    return build(12)
"""


@pytest.mark.parametrize(
    "command",
    [
        ("train",),
        ("rank", "--method", "magnitude", "--weights", "weights.safetensors"),
        ("prune", "--method", "magnitude", "--arch", "4", "--weights", "weights.safetensors"),
        ("doctor", "--dataset", "digits", "--weights", "weights.safetensors"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize(("name", "n_outputs"), [("few", 5), ("many", 12)])
def test_another_number_of_outputs_than_of_classes_ends_in_one_line(
    run: Run, command: tuple[str, ...], name: str, n_outputs: int
) -> None:
    Path("mine.py").write_text(OWN_NETWORKS)
    save_weights(find_in_file(f"mine.py:{name}", "")(), Path("weights.safetensors"))
    result = run(*command, "--network", f"mine.py:{name}")
    check_one_line(result, f"with 10 outputs, one for each class of digits, got {n_outputs}; try another")


def test_a_stored_network_of_fewer_classes_than_the_data_ends_in_one_line(run: Run) -> None:
    options = {"n_classes": 5}
    network = create_network("lenet5", options)
    save_weights(network, Path("weights.safetensors"))
    fragment = "expected a network with 10 outputs, one for each class of digits, got 5"
    arguments = ["--network", "lenet5", "--classes", 5, "--weights", "weights.safetensors"]
    check_one_line(run("doctor", *arguments, "--dataset", "digits"), fragment)
    kept = {"conv1": range(10), "conv2": range(20), "linear1": range(100), "linear2": range(25)}
    save_model(
        Path("pruned"),
        network,
        architecture={name: len(channels) for name, channels in kept.items()},
        kept=kept,
        base={**identify("lenet5"), "options": options},
        input_shape=(1, 28, 28),
        normalisation={},
        metrics={},
    )
    check_one_line(run("retrain", "pruned"), fragment)


@pytest.mark.parametrize("option", ["--epochs", "--batch-size"])
def test_fine_tuning_options_without_retrain_are_refused(run: Run, weights: Path, option: str) -> None:
    arguments = ["--method", "random", "--arch", "8,9,36,17", option, 2]
    check_one_line(run("prune", "--weights", weights, *arguments), "--retrain")


def test_an_architecture_that_is_none_is_refused_before_anything_is_loaded(run: Run) -> None:
    arguments = ["--weights", "nowhere.safetensors", "--method", "random", "--arch"]
    for arch, got in (("8,9,many", "'many'"), ("conv*=1.5", "'1.5'")):
        check_one_line(run("prune", *arguments, arch), "whole numbers of kept channels", got)


def test_a_data_folder_that_is_empty_or_cut_short_is_refused(run: Run, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    check_one_line(run("train", "--data", empty), str(empty), "train-images-idx3-ubyte")
    raw = tmp_path / "short" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\0\0\x08\x01\0\0")
    check_one_line(run("train", "--data", tmp_path / "short"), str(raw))
    assert list_files() == []
    assert list(empty.iterdir()) == []


def test_weights_of_another_network_are_refused(run: Run, tmp_path: Path) -> None:
    wide, foreign = tmp_path / "wide.safetensors", tmp_path / "foreign.pt"
    save_weights(LeNet5((10, 20, 100, 30)), wide)
    torch.save({"layer.weight": torch.zeros(3, 3)}, foreign)
    for path, fragment in ((wide, "linear2"), (foreign, "missing conv1.weight")):
        check_one_line(run("rank", "--weights", path, "--method", "random"), str(path), fragment)
    assert list_files() == []


def test_broken_weights_are_refused(run: Run, tmp_path: Path, weights: Path) -> None:
    short, text = tmp_path / "short.safetensors", tmp_path / "weights.txt"
    short.write_bytes(weights.read_bytes()[:-100])
    text.write_text("hello")
    for path in (short, text):
        check_one_line(run("rank", "--weights", path, "--method", "random"), str(path))


class Harmful:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    harmful = tmp_path / "harmful.pt"
    torch.save({"conv1.weight": Harmful(trace)}, harmful)
    bare = tmp_path / "bare.pth"
    bare.write_bytes(pickle.dumps(Harmful(trace)))
    for path in (harmful, bare):
        check_one_line(run("rank", "--weights", path, "--method", "random"), str(path), "run code")
        assert not trace.exists()


@pytest.mark.parametrize("option", ["--output", "--cache"])
def test_an_output_folder_that_cannot_be_written_is_refused(
    run: Run, weights: Path, tmp_path: Path, option: str
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    arguments = ["--weights", weights, "--method", "random", "--arch", "8,9,36,17"]
    for place in (blocked, blocked / "below"):
        result = run("prune", *arguments, option, place)
        check_one_line(result, str(place), f"try another {option}")
        assert result.output == ""  # found before any work was done
    assert blocked.read_text() == "in the way"
    assert list_files() == []


@pytest.mark.parametrize("option", ["--output", "--cache"])
def test_a_folder_whose_name_is_too_long_for_the_system_ends_in_one_line(run: Run, option: str) -> None:
    arguments = ["--weights", "w.safetensors", "--method", "random", "--arch", "8,9,36,17"]
    result = run("prune", *arguments, option, "x" * 300)
    check_one_line(result, "File name too long", "x" * 300, "try another folder")
    assert list_files() == []


def test_an_output_file_that_cannot_be_written_is_refused(run: Run, weights: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "folder.safetensors"
    blocked.mkdir()
    check_one_line(run("train", "--output", blocked), str(blocked), "a folder has that name")
    check_one_line(run("train", "--output", weights / "w.safetensors"), "is not a folder")
    check_one_line(
        run("rank", "--weights", weights, "--method", "random", "--output", tmp_path),
        "a folder has that name",
    )


def test_a_default_output_that_cannot_be_written_is_refused(run: Run, weights: Path) -> None:
    Path("output").write_text("in the way")
    check_one_line(run("train", "--epochs", 1), "output", "is not a folder")
    arguments = ["--weights", weights, "--method", "random", "--arch", "8,9,36,17", "--cache", "scores"]
    check_one_line(run("prune", *arguments), "output", "is not a folder")
    assert list_files() == [Path("output")]


def run_process(*arguments: str, folder: Path) -> Result:
    environment = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "from dirprune.cli import main; main()", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_real_command_ends_a_mistake_in_one_line(tmp_path: Path) -> None:
    check_one_line(run_process("prun", folder=tmp_path), "did you mean 'prune'?")
    check_one_line(run_process("train", "--data", "nowhere", folder=tmp_path), "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom dirprune.cli.app import program\nfrom dirprune.cli.errors import run_command\n"
        "run_command(program, ['--help'], name='dirprune')\nassert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Prune a trained network to an architecture." in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("prune", "--method", "magnitude", "--arch", "8,9,36,17"),
        ("rank", "--method", "magnitude"),
        ("covariances", "--output", "covariances"),
    ],
)
def test_weights_of_a_network_whose_every_group_is_refused(run: Run, arguments: tuple[str, ...]) -> None:
    thin = {"widths": [1, 1, 1, 1]}
    header = Header("lenet5", thin, dataset="digits", validation_from="train:0.1", data_seed=0)
    write_weights(create_network("lenet5", thin), Path("thin.safetensors"), header)
    result = run(*arguments, "--weights", "thin.safetensors")
    check_one_line(result, "can be cut, got none (conv1: it has a single channel; ")
    assert list_files() == [Path("thin.safetensors")]

"""`dirprune doctor` says what of a network can be cut before anybody trains anything."""

from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dirprune.cli import doctor, subjects
from dirprune.cli.doctor import format_ms
from dirprune.cli.printing import ScoringProgress
from dirprune.errors import ConfigurationError
from dirprune.networks import create_network, save_weights
from tests.cli.conftest import Run
from tests.data.photograph_folders import write_folders


def test_groups_refusals_reach_and_steps_are_printed(run: Run) -> None:
    said = run("doctor", "--network", "resnet20", "--batch-size", "2").output
    assert "inputs of 3 x 32 x 32, 40,551,040 MACs, 269,722 parameters" in said
    assert "9 can be cut, 1 cannot" in said
    assert "layer3.2.conv1" in said
    assert "conv1 is left whole: masked and compact outputs differ" in said
    assert "95.2% of the MACs can be cut" in said
    assert "5,253,760 to 40,551,040 (13.0 to 100%) MACs" in said
    assert "a plain step on 2 inputs" in said
    assert "plain: float32, SGD, a squared error; a study's recipe may add a teacher's pass" in said


@pytest.mark.parametrize(
    "command",
    [
        ("doctor", "--network", "lenet5"),
        ("rank", "--method", "magnitude", "--weights"),
        ("prune", "--method", "random", "--arch", "8,9,36,17", "--weights"),
    ],
    ids=lambda command: command[0],
)
def test_it_is_said_how_many_groups_are_tried_out_where_that_takes_long(
    command: tuple[object, ...], run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subjects, "ScoringProgress", partial(ScoringProgress, clock=count(step=20).__next__))
    said = run(*command, *([weights] if command[-1] == "--weights" else []))
    lines = said.errors.splitlines()
    assert lines[0] == "looking: layers traced 0/5"
    assert "looking: channel groups tried out 0/4" in lines


def test_weights_are_judged_on_the_data(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "lenet.safetensors"
    save_weights(create_network("lenet5", seed=0), path)
    said = run("doctor", "--network", "lenet5", "--weights", path, "--dataset", "digits").output
    assert "fit; accuracy 0." in said
    assert "held-out images of digits" in said
    assert "inputs of 1 x 28 x 28" in said


def test_a_device_that_is_not_there_is_refused_before_anything_is_done(run: Run) -> None:
    refused = run("doctor", "--network", "lenet5", "--device", "cuda:99")
    assert refused.status == 2
    assert "expected a device that is here, got 'cuda:99'" in refused.errors
    assert "network:" not in refused.output


def test_what_a_study_reaches_with_multiples_of_channels_is_printed(run: Run) -> None:
    given = ("--network", "tests.cli.test_cli_doctor:six_wide", "--input-shape", "4")
    said = run("doctor", *given, "--channel-multiple", 4).output
    assert "keeps 0.1 of each group or more in multiples of 4 reaches" in said
    assert "  24 to 36 (66.7 to 100%) MACs" in said
    assert "  30 to 44 (68.2 to 100%) parameters" in said
    assert "  6 to 36 (16.7 to 100%) MACs" in run("doctor", *given).output


def test_a_processor_by_number_is_a_device_too(run: Run) -> None:
    given = ("--network", "tests.cli.test_cli_doctor:six_wide", "--input-shape", "4")
    said = run("doctor", *given, "--device", "cpu:0")
    assert (said.status, said.errors) == (0, "")
    assert "a plain step on 32 inputs (CPU, 1 thread): evaluation" in said.output


@pytest.mark.parametrize(
    ("network", "step"),
    [
        ("frozen", "no training step: no floating output of the network requires gradients; a study trains"),
        ("choosing", "training "),
    ],
)
def test_a_step_trains_what_has_gradients_if_anything_has(network: str, step: str, run: Run) -> None:
    said = run("doctor", "--network", f"tests.cli.test_cli_doctor:{network}", "--input-shape", "4")
    assert (said.status, said.errors) == (0, "")
    assert f" a second), {step}" in said.output


@pytest.mark.parametrize("size", [("--batch-size", 2**62), ("--input-shape", f"3,{2**31},{2**31}")])
@pytest.mark.parametrize("command", [("doctor",), ("fit-latency", "--output", "latency.json")])
def test_what_no_memory_holds_ends_in_one_line(
    command: tuple[str, ...], size: tuple[object, ...], run: Run
) -> None:
    refused = run(*command, "--network", "resnet20", "--input-shape", "3,32,32", *size)
    assert refused.status == 2
    assert "error: expected room in memory for what is computed, got " in refused.errors
    assert "try smaller or fewer inputs at once" in refused.errors
    assert refused.errors.count("\n") == 1


def test_the_end_of_steps_on_metal_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append(1))
    doctor._time(lambda: None, "mps")
    assert len(waited) == 1 + doctor.N_STEPS
    assert doctor._name_device("mps", 1) == "mps"


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (("MNIST",), "mnist"),
        (("cifar-10-batches-py",), "cifar10"),
        (("cifar-100-python", "FashionMNIST"), "cifar100 or fashion_mnist"),
    ],
)
def test_a_data_set_of_torchvision_is_recognised_by_its_folder(
    folders: tuple[str, ...], names: str, run: Run, tmp_path: Path
) -> None:
    for folder in folders:
        (tmp_path / "sets" / folder).mkdir(parents=True)
    refused = run("doctor", "--network", "lenet5", "--data", tmp_path / "sets")
    assert refused.status == 2
    assert "expected train/<class>/<image> and test or val likewise" in refused.errors
    assert sorted(names.split(" or ")) == sorted(refused.errors.rpartition("--dataset ")[2].split()[::2])
    assert refused.errors.count("\n") == 1


def test_weights_are_judged_on_the_device(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(network: nn.Module, *given: object) -> None:
        raise ConfigurationError(f"{next(network.parameters()).device} and {given[-1]}")

    monkeypatch.setattr(doctor, "choose_device", lambda name: "meta")
    monkeypatch.setattr(doctor, "evaluate", evaluate)
    path = tmp_path / "lenet.safetensors"
    save_weights(create_network("lenet5", seed=0), path)
    refused = run("doctor", "--network", "lenet5", "--weights", path, "--dataset", "digits")
    assert "error: meta and meta" in refused.errors


def test_a_network_of_ones_own_is_named_by_its_module_and_function(
    run: Run,
) -> None:
    Path("own_networks.py").write_text(
        "from torch import nn\n"
        "def small():\n"
        "    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))\n"
        "def boom():\n"
        "    return small(3)\n"
        "def leave():\n"
        "    raise SystemExit(0)\n"
    )
    for network in ("own_networks:small", "own_networks.py:small"):
        said = run("doctor", "--network", network, "--input-shape", "4").output
        assert "1 can be cut, 0 cannot" in said
        assert "evaluation 0 ms" not in said
    refused = run("doctor", "--network", "own_networks.py:boom", "--input-shape", "4")
    assert refused.status == 2
    assert "error: the network function boom fails at " in refused.errors
    assert "own_networks.py:5: TypeError: small() takes 0 positional arguments" in refused.errors
    assert refused.errors.count("\n") == 1
    refused = run("doctor", "--network", "own_networks.py:leave", "--input-shape", "4")
    assert refused.status == 2
    assert "own_networks.py:7: SystemExit: 0" in refused.errors


def test_parameters_whose_macs_are_not_counted_are_warned_of_in_one_line(run: Run) -> None:
    said = run(
        "doctor",
        "--network",
        "tests.cli.test_cli_doctor:remembering",
        "--input-shape",
        "3,4",
        "--batch-size",
        2,
    ).output
    warning = "WARNING: 84 parameters (52.8%) lie in layers whose MACs are not counted: 2.memory (RNN)"
    assert said.splitlines()[1] == warning
    assert "WARNING" not in run("doctor", "--network", "lenet5", "--batch-size", 2).output


def test_a_network_of_ones_own_with_masks_ends_in_a_line_that_says_what_to_do(run: Run) -> None:
    Path("masked.py").write_text(
        "from torch import nn\n"
        "from torch.nn.utils import prune\n"
        "def masked():\n"
        "    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))\n"
        "    prune.random_unstructured(network[0], 'weight', 0.5)\n"
        "    return network\n"
    )
    refused = run("doctor", "--network", "masked.py:masked", "--input-shape", "4")
    assert refused.status == 2
    assert refused.errors == (
        "error: expected plain weights, got 'weight' of '0' computed for each pass by masks of "
        'torch.nn.utils.prune; try torch.nn.utils.prune.remove(module, "weight") first, for each such '
        "module\n"
    )


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0000456, "0.0456"), (0.00123, "1.23"), (0.0999, "99.9"), (12.3456, "12,346")]
)
def test_steps_of_fast_machines_are_no_0_ms(seconds: float, said: str) -> None:
    assert format_ms(seconds) == said


def test_class_folders_need_no_name_and_a_network_of_ones_own_no_classes(run: Run, tmp_path: Path) -> None:
    write_folders(tmp_path / "photographs")
    for path in (tmp_path / "photographs").rglob("*.*"):
        Image.open(path).resize((40, 30)).save(path)
    network = "tests.cli.test_cli_doctor:convolutions"
    said = run("doctor", "--network", network, "--data", tmp_path / "photographs", "--batch-size", 2).output
    assert "inputs of 3 x 30 x 40" in said
    assert "1 can be cut, 0 cannot" in said


def test_a_network_whose_every_group_is_refused_is_refused_after_all_reasons(run: Run) -> None:
    refused = run("doctor", "--network", "tests.cli.test_cli_doctor:thin", "--input-shape", "1,28,28")
    assert refused.status == 2
    for name in ("conv1", "conv2", "linear1", "linear2"):
        assert f"{name} is left whole: it has a single channel" in refused.output
    assert refused.errors.splitlines() == [
        "error: expected a network with channel groups that can be cut, got none (conv1: it has a single "
        "channel; conv2: it has a single channel; linear1: it has a single channel; and 1 more, see dirprune "
        "doctor)"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--network", "resnt20"), "unknown network 'resnt20'; did you mean 'resnet20'?"),
        (
            ("--network", "tests.cli.test_cli_doctor:linear", "--input-shape", "4"),
            "got none (only its output)",
        ),
        (("--network", "nowhere:net"), "expected a function that returns a network at 'nowhere:net'"),
        (
            ("--network", ":net"),
            "expected a function that returns a network at ':net', got Empty module name",
        ),
        (("--network", ".x:net"), "expected a function that returns a network at '.x:net'"),
        (
            ("--network", "tests.cli.test_cli_doctor:MADE", "--input-shape", "4"),
            "expected a function that returns a network, got an object of Linear",
        ),
        (("--network", "resnet20", "--data", "."), "expected train/<class>/<image> and test or val likewise"),
        (
            ("--network", "tests.cli.test_cli_doctor:linear", "--classes", "4"),
            "--classes is of networks by name, tests.cli.test_cli_doctor:linear knows its own",
        ),
        (
            ("--network", "tests.cli.test_cli_doctor:normed", "--input-shape", "3,5,5", "--batch-size", "1"),
            "expected inputs enough for batch norm to train, got 1 (Expected more than 1 value per channel "
            "when training, got input size torch.Size([1, 6])); try --batch-size 2, or a larger --input-sha",
        ),
        (("--network", "lenet5", "--input-shape", f"1,{10**18},1"), "expected sizes of 18 digits at most"),
        (("--network", "lenet5", "--input-shape", "3,32,32"), "accepts inputs of shape (2, 3, 32, 32)"),
    ],
)
def test_what_cannot_be_looked_at_is_one_clear_line(
    arguments: tuple[str, ...], message: str, run: Run
) -> None:
    refused = run("doctor", *arguments)
    assert refused.status == 2
    assert message in refused.errors
    assert refused.errors.count("\n") == 1


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
    )


def six_wide() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def frozen() -> nn.Module:
    return six_wide().requires_grad_(False)


class _Choosing(nn.Module):
    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        return logits.argmax(1), logits


def choosing() -> nn.Module:
    return six_wide().append(_Choosing())


class _Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.RNN(6, 6, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.memory(inputs)[0][:, -1]


def remembering() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), _Remembering(), nn.Linear(6, 2))


def normed() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 5), nn.Flatten(), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def thin() -> nn.Module:
    return create_network("lenet5", {"widths": (1, 1, 1, 1)})


def linear() -> nn.Module:
    return nn.Linear(4, 2)


MADE = linear()

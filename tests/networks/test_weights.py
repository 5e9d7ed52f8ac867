"""Weights come back as they were; files that are broken, foreign or dangerous are one clear line."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from dirprune.errors import WeightsError
from dirprune.networks import LeNet5, load_weights_, read_state_dict, save_weights


class RunsCode:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def snapshot(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert sorted(first) == sorted(second)
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_safetensors_bring_the_same_weights_back(tmp_path: Path) -> None:
    network, other = LeNet5(), LeNet5()
    network(torch.randn(4, 1, 28, 28))  # batch-norm statistics that are not the initial ones
    save_weights(network, tmp_path / "model.safetensors")
    load_weights_(other, tmp_path / "model.safetensors")
    assert_same(snapshot(network), snapshot(other))
    assert list(tmp_path.iterdir()) == [tmp_path / "model.safetensors"]


def test_shared_and_strided_tensors_are_written_whole(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    state = {"table": table, "turned": table.T, "part": table[:, 1]}
    save_weights(state, tmp_path / "a.safetensors")
    assert_same(read_state_dict(tmp_path / "a.safetensors"), state)


def test_weights_with_masks_are_named_with_what_makes_them_plain(tmp_path: Path) -> None:
    network = LeNet5()
    prune.l1_unstructured(network.conv1, "weight", 0.5)
    torch.save(network.state_dict(), tmp_path / "masked.pt")
    with pytest.raises(
        WeightsError, match=r"got masks of torch\.nn\.utils\.prune .* try torch\.nn\.utils\.prune"
    ):
        load_weights_(LeNet5(), tmp_path / "masked.pt")
    prune.remove(network.conv1, "weight")
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    load_weights_(LeNet5(), tmp_path / "plain.pt")


def test_only_safetensors_are_written(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"expected a file name that ends in \.safetensors, got .*model\.pt"
    ):
        save_weights(LeNet5(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th"])
@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 93.4},
        lambda state: {"model": state},
        lambda state: {"net": state, "epoch": 3},
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        lambda state: {f"net.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": OrderedDict((f"module.{key}", value) for key, value in state.items())},
    ],
)
def test_checkpoints_of_others_are_read(tmp_path: Path, suffix: str, is_legacy: bool, wrap) -> None:
    network, other = LeNet5(), LeNet5()
    path = tmp_path / f"model{suffix}"
    torch.save(wrap(network.state_dict()), path, _use_new_zipfile_serialization=not is_legacy)
    load_weights_(other, path)
    assert_same(snapshot(network), snapshot(other))


def test_the_prefix_of_data_parallel_is_removed_from_safetensors_too(tmp_path: Path) -> None:
    network, other = LeNet5(), LeNet5()
    saved = {f"module.{key}": value for key, value in network.state_dict().items()}
    save_weights(saved, tmp_path / "a.safetensors")
    load_weights_(other, tmp_path / "a.safetensors")
    assert_same(snapshot(network), snapshot(other))


def test_a_prefix_that_only_some_keys_have_stays(tmp_path: Path) -> None:
    torch.save({"module.a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "a.pt")
    assert set(read_state_dict(tmp_path / "a.pt")) == {"module.a", "b"}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_prefix_that_the_network_itself_has_stays(tmp_path: Path, prefix: str) -> None:
    class Wrapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = LeNet5()

    network, other = Wrapping(), Wrapping()
    saved = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    save_weights(saved, tmp_path / "a.safetensors")
    load_weights_(other, tmp_path / "a.safetensors")
    assert_same(snapshot(network), snapshot(other))


def test_several_missing_keys_have_their_nearest_named(tmp_path: Path) -> None:
    state = {key.replace("conv", "convolution"): value for key, value in LeNet5().state_dict().items()}
    save_weights(state, tmp_path / "other.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"; nearest to conv1\.weight is convolution1\.weight, to conv1\.bias is convolution1\.bias, "
        r"to conv2\.weight is convolution2\.weight$",
    ):
        load_weights_(LeNet5(), tmp_path / "other.safetensors")


def test_old_files_without_batch_counters_are_read(tmp_path: Path) -> None:
    network, other = LeNet5(), LeNet5()
    state = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    save_weights(state, tmp_path / "old.safetensors")
    load_weights_(other, tmp_path / "old.safetensors")
    assert torch.equal(network.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize("kind", ["torch", "torch legacy", "pickle"])
@pytest.mark.parametrize("suffix", [".pt", ".th"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, kind: str, suffix: str) -> None:
    mark, path = tmp_path / "it_ran", tmp_path / f"bad{suffix}"
    payload = {"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": RunsCode(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(
        WeightsError, match=r"^expected only tensors in .*bad.*could run code.*safetensors$"
    ) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_the_dangerous_pickle_of_this_test_would_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "it_ran")))
    assert (tmp_path / "it_ran").is_dir()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(LeNet5(), tmp_path / "network.pt")
    with pytest.raises(WeightsError, match="expected only tensors in"):
        read_state_dict(tmp_path / "network.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("n_kept", [0, 5, 100, 20_000])
def test_a_truncated_file_is_one_clear_line(tmp_path: Path, suffix: str, n_kept: int) -> None:
    path = tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(LeNet5().state_dict(), path)
    else:
        save_weights(LeNet5(), path)
    path.write_bytes(path.read_bytes()[:n_kept])
    with pytest.raises(WeightsError, match="broken") as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_files_folders_and_other_kinds_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected a weights file, found none at .*nothing\.pt"):
        read_state_dict(tmp_path / "nothing.pt")
    with pytest.raises(WeightsError, match="expected a weights file, found none at"):
        read_state_dict(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(
        WeightsError, match=r"ends in one of \.safetensors, \.pt, \.pth, \.th, got .*model\.onnx"
    ):
        read_state_dict(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "content", [{}, [1], {"epoch": 3}, {"state_dict": {"a": 1}}, {"model": {1: torch.zeros(1)}}]
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="expected a state dict"):
        read_state_dict(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_named_and_change_nothing(tmp_path: Path, value: float) -> None:
    state = LeNet5().state_dict()
    state["linear1.bias"][3] = value
    state["bn2.running_var"][0] = value
    save_weights(state, tmp_path / "diverged.safetensors")
    network = LeNet5()
    before = snapshot(network)
    with pytest.raises(
        WeightsError,
        match=r"got NaN or infinity in bn2\.running_var, linear1\.bias of .*/diverged\.safetensors; ",
    ):
        load_weights_(network, tmp_path / "diverged.safetensors")
    assert_same(before, snapshot(network))


@pytest.mark.filterwarnings("ignore")  # torch's, that nested, quantised and compressed ones are no longer new
@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (
            lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
            r"a quantised tensor .*int8",
        ),
        (lambda weight: weight.to("meta"), r"a tensor without content \(on the device meta\)"),
        (lambda weight: weight.to_sparse(), r"a sparse tensor \(torch\.sparse_coo\)"),
        (lambda weight: weight.to_sparse_csr(), r"a sparse tensor \(torch\.sparse_csr\)"),
        (lambda weight: torch.nested.nested_tensor(list(weight)), "a nested tensor"),
        (lambda weight: weight + 1j, r"complex numbers \(torch\.complex64\)"),
        (lambda weight: weight.to(torch.uint8).view(torch.bits8), r"a tensor of torch\.bits8"),
    ],
)
def test_tensors_of_a_kind_that_no_weights_are_of_are_named_and_change_nothing(
    tmp_path: Path, convert: Callable[[Tensor], Tensor], kind: str
) -> None:
    state = {name: tensor + 1 for name, tensor in snapshot(nn.Linear(4, 3)).items()}
    torch.save({**state, "weight": convert(state["weight"])}, tmp_path / "a.pth")
    network = nn.Linear(4, 3)
    before = snapshot(network)
    with pytest.raises(WeightsError, match=rf"got {kind}.* for weight in .*/a\.pth; try saving"):
        load_weights_(network, tmp_path / "a.pth")
    assert_same(before, snapshot(network))


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_eight_bits_are_widened(tmp_path: Path, kind: torch.dtype, suffix: str) -> None:
    state = {name: tensor.to(kind) for name, tensor in nn.Linear(4, 3).state_dict().items()}
    path = tmp_path / f"a{suffix}"
    save_weights(state, path) if suffix == ".safetensors" else torch.save(state, path)
    network = nn.Linear(4, 3)
    load_weights_(network, path)
    assert_same({name: tensor.float() for name, tensor in state.items()}, snapshot(network))
    state["weight"] = torch.full((4, 3), float("nan")).T.to(kind)
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="got NaN or infinity in weight"):
        load_weights_(network, tmp_path / "b.pth")


def test_complex_weights_of_a_complex_network_are_loaded(tmp_path: Path) -> None:
    network, other = nn.Linear(2, 2, dtype=torch.complex64), nn.Linear(2, 2, dtype=torch.complex64)
    save_weights(network, tmp_path / "a.safetensors")
    load_weights_(other, tmp_path / "a.safetensors")
    assert_same(snapshot(network), snapshot(other))


def test_infinity_that_the_network_itself_has_is_loaded(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    network.register_buffer("window", torch.full((2,), float("-inf")))
    save_weights(network, tmp_path / "a.safetensors")
    load_weights_(network, tmp_path / "a.safetensors")


def test_weights_of_another_network_are_named_with_the_keys_and_change_nothing(tmp_path: Path) -> None:
    state = LeNet5().state_dict()
    state["convolution1.weight"] = state.pop("conv1.weight")
    state["extra.bias"] = torch.zeros(3)
    save_weights(state, tmp_path / "other.safetensors")
    network = LeNet5()
    before = snapshot(network)
    with pytest.raises(
        WeightsError,
        match=r"^expected weights of LeNet5, got those of another network in .*other\.safetensors: missing "
        r"conv1\.weight; unexpected convolution1\.weight, extra\.bias; "
        r"nearest to conv1\.weight is convolution1\.weight$",
    ):
        load_weights_(network, tmp_path / "other.safetensors")
    assert_same(before, snapshot(network))


def test_a_long_list_of_keys_is_cut(tmp_path: Path) -> None:
    save_weights(
        {f"features.{number}.w": torch.zeros(1) for number in range(9)}, tmp_path / "vgg.safetensors"
    )
    with pytest.raises(
        WeightsError,
        match=r"missing conv1\.weight, conv1\.bias, bn1\.weight and 15 more; unexpected .* and 6 more",
    ):
        load_weights_(LeNet5(), tmp_path / "vgg.safetensors")


def test_weights_of_other_widths_are_named_with_both_shapes_and_change_nothing(tmp_path: Path) -> None:
    save_weights(LeNet5(widths=(10, 20, 100, 24)), tmp_path / "narrow.safetensors")
    network = LeNet5()
    before = snapshot(network)
    with pytest.raises(
        WeightsError,
        match=r"^expected shape \(25, 100\) for linear2\.weight of LeNet5, got \(24, 100\) in "
        r".*narrow\.safetensors and 2 more differ; is it of other widths\?$",
    ):
        load_weights_(network, tmp_path / "narrow.safetensors")
    assert_same(before, snapshot(network))


def test_weights_of_another_number_of_classes_are_named_as_such(tmp_path: Path) -> None:
    save_weights(LeNet5(n_classes=100), tmp_path / "fine.safetensors")
    with pytest.raises(
        WeightsError, match=r"got \(100, 25\) in .* and 1 more differ; is it of 100 classes\?$"
    ):
        load_weights_(LeNet5(), tmp_path / "fine.safetensors")

"""An exported network gives the stored network's outputs, for any batch, or nothing is written."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from dirprune.errors import ConfigurationError, StudyError
from dirprune.networks import create_network
from dirprune.networks.weights import save_weights
from dirprune.records import export
from dirprune.records.export import export_model
from dirprune.records.models import load_model, save_model
from dirprune.surgery import compact
from dirprune.tracing import find_groups

KEPT = {"conv1": [0, 3], "conv2": [1, 2, 9], "linear1": [0, 2, 4, 6], "linear2": [5, 6]}


def store_lenet(folder: Path, seed: int) -> None:
    """Store a pruned LeNet-5 with weights of a seed."""
    network, example = create_network("lenet5", seed=seed), torch.zeros(2, 1, 28, 28)
    save_model(
        folder,
        compact(network, find_groups(network, example), KEPT, example),
        architecture={name: len(kept) for name, kept in KEPT.items()},
        kept=KEPT,
        base={"name": "lenet5", "options": {}},
        input_shape=(1, 28, 28),
        normalisation={"mean": (0.1307,), "std": (0.3081,)},
        metrics={"macs": 5.0},
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    store_lenet(tmp_path / "models" / "7", seed=3)
    return tmp_path / "models" / "7"


def test_pt2_runs_without_dirprune_for_batches_of_any_size(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "7.pt2"
    assert export_model(model, target, "pt2") < 1e-5
    program = torch.export.load(target).module()
    images = torch.randn(11, 1, 28, 28)
    torch.testing.assert_close(program(images), load_model(model)(images))


def test_safetensors_are_a_folder_that_loads(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert export_model(model, target, "safetensors") == 0.0
    assert export_model(model, target, "safetensors") == 0.0
    images = torch.randn(3, 1, 28, 28)
    assert torch.equal(load_model(target)(images), load_model(model)(images))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "models"]


def test_onnx_gives_the_same_outputs_where_it_is_installed(model: Path, tmp_path: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        with pytest.raises(ConfigurationError, match="not installed"):
            export_model(model, tmp_path / "7.onnx", "onnx")
        return
    assert export_model(model, tmp_path / "7.onnx", "onnx") < 1e-4
    assert (tmp_path / "7.onnx").stat().st_size > 0


def test_onnx_without_its_packages_names_the_extra_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"expected onnx, .*; try pip install 'dirprune\[export\]'"):
        export_model(model, tmp_path / "7.onnx", "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_network_that_differs_is_refused_and_nothing_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = export._read_pt2
    monkeypatch.setattr(export, "_read_pt2", lambda path: lambda x: read(path)(x) + 0.01)
    with pytest.raises(StudyError, match=r"expected outputs within 0.0001 of .* got a difference of 0.0"):
        export_model(model, tmp_path / "7.pt2", "pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert export_model(model, tmp_path / "7.pt2", "pt2", tolerance=0.1) == pytest.approx(0.01, rel=1e-3)


def test_network_that_gives_nan_is_refused(model: Path, tmp_path: Path) -> None:
    network = load_model(model)
    with torch.no_grad():
        next(network.parameters()).fill_(
            3e38
        )  # finite, as a network must be to be loaded; its outputs are not
    save_weights(network, model / "model.safetensors")
    with pytest.raises(StudyError, match="got a difference of nan"):
        export_model(model, tmp_path / "7.pt2", "pt2")


def test_unknown_format_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected the format pt2, onnx, safetensors, got 'pkl'"):
        export_model(model, tmp_path / "7.pkl", "pkl")

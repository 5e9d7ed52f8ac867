"""Stored models: what comes back, and whose code is never run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dirprune.errors import ArchitectureError, StudyError, WeightsError
from dirprune.identity import identify
from dirprune.networks import create_network
from dirprune.records.models import load_model, save_model
from dirprune.surgery import compact
from dirprune.tracing import find_groups

KEPT = {"conv1": [0, 3, 9], "conv2": [1, 2, 3, 19], "linear1": list(range(0, 100, 2)), "linear2": [24]}
LENET = {"name": "lenet5", "options": {}}


def make_network() -> nn.Module:
    return create_network("lenet5", {"widths": (4, 5, 6, 7)})


def store(folder: Path, network: nn.Module, kept: dict[str, list[int]], base: dict[str, Any]) -> nn.Module:
    example = torch.zeros(2, 1, 28, 28)
    pruned = compact(network, find_groups(network, example), kept, example)
    architecture = {name: len(indices) for name, indices in kept.items()}
    metrics = {"macs": 5.0, "val_loss": math.inf}
    save_model(
        folder,
        pruned,
        architecture=architecture,
        kept=kept,
        base=base,
        input_shape=(1, 28, 28),
        normalisation={"mean": (0.1307,), "std": (0.3081,)},
        metrics=metrics,
    )
    return pruned.eval()


def test_stored_network_comes_back_with_the_same_outputs(tmp_path: Path) -> None:
    pruned = store(tmp_path, create_network("lenet5", seed=1), KEPT, LENET)
    loaded = load_model(str(tmp_path))
    images = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert not loaded.training
    assert torch.equal(loaded(images), pruned(images))
    stored = json.loads((tmp_path / "architecture.json").read_text())
    assert stored["schema"] == 1
    assert list(stored["groups"]) == ["conv1", "conv2", "linear1", "linear2"]
    assert stored["groups"]["conv1"] == {"n_kept": 3, "kept": [0, 3, 9]}
    assert stored["metrics"] == {"macs": 5.0, "val_loss": None}


def test_function_named_in_a_file_is_not_called_unless_it_is_given(tmp_path: Path) -> None:
    kept = {"conv1": [0, 1], "conv2": [2], "linear1": [0, 5], "linear2": [6]}
    pruned = store(tmp_path, make_network(), kept, {**identify(make_network), "options": {}})
    with pytest.raises(
        StudyError, match="test_models:make_network, and code that a file names is never run; pass"
    ):
        load_model(tmp_path)
    images = torch.ones(2, 1, 28, 28)
    assert torch.equal(load_model(tmp_path, make_network)(images), pruned(images))


def test_other_network_or_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"found nothing at \S+/typo; is the path right\?"):
        load_model(tmp_path / "typo")
    with pytest.raises(StudyError, match=r"found no architecture.json; .* is the trial not finished\?"):
        load_model(tmp_path)
    store(tmp_path, create_network("lenet5"), KEPT, LENET)
    with pytest.raises(ArchitectureError, match="expected distinct channels of 'conv1' between 0 and 3"):
        load_model(tmp_path, make_network)
    other = store(tmp_path / "other", create_network("lenet5"), {**KEPT, "linear2": [0, 1]}, LENET)
    assert other is not None
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError) as raised:
        load_model(tmp_path)
    assert "\n" not in str(raised.value)

"""Pruned networks on disk: what was kept, the weights, and the network it was cut from; never a pickle.

`<study>/models/<trial>/model.safetensors` holds the compact network's state. `architecture.json` beside it:

| key | meaning |
|---|---|
| schema | version of this format |
| network | the network before pruning: name and options, or module and name of a user's function |
| input_shape | shape of one input, without the batch axis |
| normalisation | mean and std per input channel, of images as fractions of 255 |
| groups | per channel group, by its first layer's module path, in forward order: n_kept, kept (indices) |
| metrics | macs, parameters and what was measured, accuracy as a fraction; null = not finite |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dirprune.errors import NotGivenError, StudyError
from dirprune.files import read_json, write_json
from dirprune.networks import create_network
from dirprune.networks.weights import load_weights_, save_weights
from dirprune.surgery import compact
from dirprune.tracing import find_groups

SCHEMA = 1
ARCHITECTURE = "architecture.json"
WEIGHTS = "model.safetensors"


def save_model(
    folder: Path,
    network: nn.Module,
    *,
    architecture: Mapping[str, int],
    kept: Mapping[str, Sequence[int]],
    base: Mapping[str, Any],
    input_shape: Sequence[int],
    normalisation: Mapping[str, Sequence[float]],
    metrics: Mapping[str, float],
) -> None:
    """Store a compact network so that `load_model` can rebuild it.

    `architecture.json` is written last: a folder that has it is whole.

    Args:
        folder: Where to store; created if missing.
        network: The compact network.
        architecture: Kept channels per group, in forward order.
        kept: Kept indices per group.
        base: The network before pruning, as `dirprune.identity.identify` says it, with its "options".
        input_shape: Shape of one input, without the batch axis.
        normalisation: "mean" and "std" of the inputs that the network was trained on.
        metrics: Costs of the compact network and what was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(network, folder / WEIGHTS)
    groups = {
        name: {"n_kept": n_kept, "kept": [int(channel) for channel in kept[name]]}
        for name, n_kept in architecture.items()
    }
    payload = {
        "network": dict(base),
        "input_shape": [int(size) for size in input_shape],
        "normalisation": {name: [float(x) for x in values] for name, values in normalisation.items()},
        "groups": groups,
        "metrics": {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()},
    }
    write_json(folder / ARCHITECTURE, payload, SCHEMA)


def load_model(folder: Path | str, network: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Rebuild a stored compact network, in evaluation mode.

    No code that a file names is ever imported or run: for a network that came from a user's own function,
    pass that function.

    Args:
        folder: `<study>/models/<trial>`.
        network: Function that makes the network as it was before pruning; needed where it is not one of
            dirprune's own.
    Raises:
        StudyError: If the folder is not there or holds no whole model, or the network is a user's own and not
            given.
        ArchitectureError: If the network has other channel groups.
        WeightsError: If the weights do not fit.
    """
    folder = Path(folder)
    stored = read_stored(folder)
    dense = _make_dense(stored["network"], network, folder)
    example = torch.zeros(2, *stored["input_shape"])
    kept = {name: group["kept"] for name, group in stored["groups"].items()}
    pruned = compact(dense, find_groups(dense, example), kept, example)
    load_weights_(pruned, folder / WEIGHTS)
    return pruned.eval()


def load_dense(folder: Path, network: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Return the network that a stored one was cut from, with fresh weights, in evaluation mode.

    Args:
        folder: As in `load_model`.
        network: Likewise.
    Raises:
        StudyError: As `load_model` does.
    """
    return _make_dense(read_stored(folder)["network"], network, folder).eval()


def read_stored(folder: Path) -> dict[str, Any]:
    """Return what is stored of a compact network beside its weights.

    Raises:
        StudyError: If the folder is not there or holds no model.
    """
    if not folder.exists():
        raise StudyError(
            f"expected the folder of a stored model, found nothing at {folder}; is the path right?"
        )
    if not (folder / ARCHITECTURE).is_file():
        raise StudyError(
            f"expected a stored model in {folder}, found no {ARCHITECTURE}; give the folder that prune or a "
            "study wrote, or is the trial not finished?"
        )
    return read_json(folder / ARCHITECTURE, SCHEMA)


def _make_dense(base: Mapping[str, Any], network: Callable[[], nn.Module] | None, folder: Path) -> nn.Module:
    options = base.get("options") or {}
    if network is not None:
        return create_network(network, options)
    if "module" in base:
        raise NotGivenError(
            f"the network of {folder} comes from {base['module']}:{base['name']}, and code that a file names "
            f"is never run; pass that function as network="
        )
    return create_network(base["name"], options)

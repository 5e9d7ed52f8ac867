"""State dicts from and to files: safetensors are written; pickles are only read, and never run code."""

from __future__ import annotations

import difflib
import pickle
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dirprune.errors import ClassesError, WeightsError, one_line
from dirprune.files import write_atomically

PICKLE_SUFFIXES = (".pt", ".pth", ".th")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
"""Under what checkpoints hold the state dict."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Stand before every name where a network was saved inside `DataParallel`, `torch.compile` or the like."""
SURE_PREFIXES = PREFIXES[:2]
"""Those that no network of one's own is likely to have: `model` and `net` are names that it may."""


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict onto the CPU without running code that the file may hold.

    A checkpoint with the state dict under one of `WRAPPERS` is unwrapped, and those of `SURE_PREFIXES` that
    stand before all names are removed.

    Args:
        path: A `.safetensors` file, or a `.pt`, `.pth` or `.th` file that holds only tensors and plain data.
    Raises:
        WeightsError: If the file is missing, of another kind, broken, or would run code when unpickled.
    """
    return _without_prefixes(_read(Path(path)), SURE_PREFIXES)


def load_weights_(network: nn.Module, path: str | Path) -> None:
    """Copy the weights of a file into a network, all of them or none.

    Args:
        network: Changed in place; every parameter and buffer must be in the file, with the same shape.
            Only `num_batches_tracked`, which old files lack, may be missing.
        path: File that `read_state_dict` reads; what it has as float8 is widened.
    Raises:
        WeightsError: If the file cannot be read, holds tensors that are sparse, nested, quantised, complex or
            on meta, or numbers that are none where a fresh network has some, or belongs to another
            network: `ClassesError` if only the number of outputs is another one.
    """
    expected = network.state_dict()
    state = _without_prefixes(_read(Path(path)), PREFIXES, expected)
    missing = [key for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    name = type(network).__name__
    masked = [key for key in missing if f"{key}_mask" in state and f"{key}_orig" in state]
    if masked:
        parameter = masked[0].rpartition(".")[2]
        raise WeightsError(
            f"expected plain weights of {name}, got masks of torch.nn.utils.prune in {path}; "
            f'try torch.nn.utils.prune.remove(module, "{parameter}") for each masked module before saving'
        )
    if missing or unexpected:
        parts = []
        if missing:
            parts.append(f"missing {_list_few(missing)}")
        if unexpected:
            parts.append(f"unexpected {_list_few(unexpected)}")
        if near := _list_nearest(missing, unexpected):
            parts.append(f"nearest to {near}")
        raise WeightsError(
            f"expected weights of {name}, got those of another network in {path}: {'; '.join(parts)}"
        )
    for key in [key for key in expected if key in state]:
        if kind := _name_unusable(state[key], expected[key]):
            raise WeightsError(
                f"expected dense tensors of real numbers as weights of {name}, got {kind} for {key} in "
                f"{path}; try saving the network's own state_dict() in float32"
            )
        state[key] = _widen(state[key])
    wrong = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if wrong:
        key = wrong[0]
        more = f" and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        output = next(reversed(expected)).rpartition(".")[0]
        is_output = {key.rpartition(".")[0] for key in wrong} == {output}
        hint = f"{len(state[key])} classes" if is_output else "other widths"
        raise (ClassesError if is_output else WeightsError)(
            f"expected shape {tuple(expected[key].shape)} for {key} of {name}, "
            f"got {tuple(state[key].shape)} in {path}{more}; is it of {hint}?"
        )
    broken = [key for key in expected if key in state and _is_finite(expected[key]) > _is_finite(state[key])]
    if broken:
        raise WeightsError(
            f"expected weights of {name} that are finite, got NaN or infinity in {_list_few(broken)} of "
            f"{path}; try weights from before the training diverged"
        )
    network.load_state_dict(state)


def _name_unusable(tensor: Tensor, expected: Tensor) -> str | None:
    """Return what a stored tensor is that cannot be copied into the expected one as it is; None: it can."""
    if tensor.is_nested:
        return "a nested tensor"
    if tensor.is_quantized:
        return f"a quantised tensor ({tensor.dtype})"
    if tensor.layout != torch.strided:
        return f"a sparse tensor ({tensor.layout})"
    if tensor.is_meta:
        return "a tensor without content (on the device meta)"
    if tensor.is_complex() and not expected.is_complex():
        return f"complex numbers ({tensor.dtype})"
    try:
        torch.isfinite(_widen(torch.zeros(tensor.itemsize, dtype=torch.uint8).view(tensor.dtype)))
    except NotImplementedError:
        return f"a tensor of {tensor.dtype}"
    return None


def _widen(tensor: Tensor) -> Tensor:
    """Return float8 as float32, since little is computed in the former; anything else as it is."""
    return tensor.float() if str(tensor.dtype).startswith("torch.float8") else tensor


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(_widen(tensor)).all())


def save_weights(
    network_or_state: nn.Module | Mapping[str, Tensor],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a state dict as safetensors, whole or not at all.

    Args:
        network_or_state: A network, or a state dict on any device.
        path: File to write; its name ends in `.safetensors`.
        metadata: Where the weights come from, kept in the file's header.
    Raises:
        WeightsError: If the name ends in anything else.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"expected a file name that ends in .safetensors, got {path}")
    given = network_or_state
    state: Mapping[str, Tensor] = given.state_dict() if isinstance(given, nn.Module) else given
    # safetensors refuses tensors that share memory or are not contiguous: give each its own
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in state.items()
    }
    with write_atomically(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, dict(metadata or {})))


def read_metadata(path: str | Path) -> dict[str, str]:
    """Read what a weights file says of itself; {} for a file of another kind than safetensors.

    Raises:
        WeightsError: If the file is broken.
    """
    if Path(path).suffix != ".safetensors" or not Path(path).is_file():
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as stored:
            return dict(stored.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(
            f"expected a whole safetensors file, got a broken one: {path} ({one_line(error)})"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Return the state dict of a file under the names that it has there."""
    if not path.is_file():
        raise WeightsError(f"expected a weights file, found none at {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in PICKLE_SUFFIXES:
        kinds = ", ".join((".safetensors", *PICKLE_SUFFIXES))
        raise WeightsError(f"expected a weights file that ends in one of {kinds}, got {path}")
    return _unwrap(_read_pickle(path), path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise WeightsError(
            f"expected a whole safetensors file, got a broken one: {path} ({one_line(error)})"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on old file formats, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"expected only tensors in {path}, got other objects or a broken pickle; it was not loaded, "
            "because that could run code; try saving network.state_dict() as .safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"expected a whole PyTorch file, got a broken one: {path} ({one_line(error)})"
        ) from error


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for _ in WRAPPERS:  # one within another
        inner = [content.get(key) for key in WRAPPERS] if isinstance(content, Mapping) else []
        content = next((one for one in inner if isinstance(one, Mapping)), content)
    is_state = isinstance(content, Mapping) and len(content) > 0
    if not is_state or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise WeightsError(
            f"expected a state dict (names and tensors) in {path}, or one under "
            f"{' or '.join(map(repr, WRAPPERS))}, got a {type(content).__name__} of something else"
        )
    return dict(content)


def _without_prefixes(
    state: dict[str, Tensor], prefixes: Sequence[str], expected: Container[str] = ()
) -> dict[str, Tensor]:
    """Return a state dict without prefixes that all names have, as far as none of them is expected so."""
    while not any(key in expected for key in state):
        prefix = next((one for one in prefixes if all(key.startswith(one) for key in state)), None)
        if prefix is None or not state:
            break
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    return state


def _list_nearest(missing: Iterable[str], unexpected: Iterable[str], n_shown: int = 3) -> str:
    """Return which of the unexpected names is like each of the first missing ones, as far as one is."""
    left, found = list(unexpected), []
    for key in list(missing)[:n_shown]:
        for near in difflib.get_close_matches(key, left, n=1, cutoff=0.6):
            left.remove(near)
            found.append(f"{key} is {near}")
    return ", to ".join(found)


def _list_few(names: Iterable[str], n_shown: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - n_shown} more" if len(listed) > n_shown else ""
    return ", ".join(listed[:n_shown]) + more

"""A stored network as a file for other programs, checked against the network that it was made from."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dirprune.errors import ConfigurationError, StudyError, one_line
from dirprune.files import read_json, write_atomically
from dirprune.records import models

FORMATS = ("pt2", "onnx", "safetensors")
TOLERANCE = 1e-4
BATCHES = (1, 5)  # sizes other than the one that is traced: a frozen batch would fail
_ONNX = ("onnx", "onnxscript", "onnxruntime")


def export_model(
    folder: Path,
    target: Path,
    kind: str,
    tolerance: float = TOLERANCE,
    network: Callable[[], nn.Module] | None = None,
) -> float:
    """Write a stored network in a format that other programs read, for any batch size.

    What was written is read again and its outputs for random inputs compared with the network's own.

    Args:
        folder: `<study>/models/<trial>`.
        target: pt2 and onnx: the file to write; safetensors: a folder that `load_model` reads.
        kind: One of `FORMATS`.
        tolerance: Largest absolute difference of outputs that is allowed.
        network: Function that makes the network before pruning, where it is a user's own.

    Returns:
        The largest absolute difference that was found.

    Raises:
        ConfigurationError: If the format is unknown or needs packages that are not installed.
        NotGivenError: If the network is a user's own and not given.
        StudyError: If there is no whole model, it cannot be exported, or it differs; nothing is written then.
    """
    if kind not in FORMATS:
        raise ConfigurationError(f"expected the format {', '.join(FORMATS)}, got {kind!r}; try pt2")
    missing = [name for name in _ONNX if kind == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"expected {', '.join(missing)} for the format onnx, not installed; "
            "try pip install 'dirprune[export]', or --format pt2"
        )
    model = models.load_model(folder, network)
    shape = tuple(read_json(folder / models.ARCHITECTURE, models.SCHEMA)["input_shape"])
    if kind == "safetensors":
        with tempfile.TemporaryDirectory(dir=_made(target.parent)) as temporary:
            copied = Path(temporary) / "model"
            copied.mkdir()
            for name in (models.WEIGHTS, models.ARCHITECTURE):
                shutil.copyfile(folder / name, copied / name)
            difference = _compare(model, models.load_model(copied, network), shape, tolerance)
            target.mkdir(exist_ok=True)
            for name in (models.WEIGHTS, models.ARCHITECTURE):
                (copied / name).replace(target / name)
        return difference
    write, read = {"pt2": (_write_pt2, _read_pt2), "onnx": (_write_onnx, _read_onnx)}[kind]
    _made(target.parent)
    with write_atomically(target) as temporary_file:
        try:
            write(model, torch.zeros(2, *shape), temporary_file)  # 1 would be taken for a constant
            exported = read(temporary_file)
        except Exception as error:  # whatever tracing a network raises
            raise StudyError(f"{folder} cannot be exported as {kind}: {one_line(error)}") from error
        return _compare(model, exported, shape, tolerance)


def _compare(
    network: Callable[[Tensor], Tensor],
    exported: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    tolerance: float,
) -> float:
    """Return the largest absolute difference between outputs; raise if it is above the tolerance."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in BATCHES:
        inputs = torch.randn(batch, *shape, generator=generator)
        with torch.inference_mode():
            expected, found = network(inputs), exported(inputs)
        if expected.shape != found.shape:
            raise StudyError(
                f"expected outputs of shape {tuple(expected.shape)} from the exported network, got "
                f"{tuple(found.shape)}; try another --format"
            )
        worst = float(np.maximum(worst, float((expected - found).abs().max())))  # max() would lose a nan
    if not worst <= tolerance:
        raise StudyError(
            f"expected outputs within {tolerance:g} of the network's own, got a difference of {worst:g}; "
            "try another --format, or --tolerance"
        )
    return worst


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_pt2(network: nn.Module, example: Tensor, path: Path) -> None:
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with path.open("wb") as file:
        torch.export.save(program, file)


def _read_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)


def _read_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])

    def run(inputs: Tensor) -> Tensor:
        (outputs,) = session.run(["output"], {"input": inputs.numpy()})
        return torch.from_numpy(np.asarray(outputs))

    return run

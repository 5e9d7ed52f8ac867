"""A trial's network as an MLflow model that loads without dirprune and without a pickle."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from dirprune.errors import TrackingError, one_line
from dirprune.files import read_json
from dirprune.records import models
from dirprune.tracking import names
from dirprune.tracking.store import RemoteRun

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


def log_model(
    client: MlflowClient,
    experiment_id: str,
    run: RemoteRun,
    folder: Path,
    network: Callable[[], nn.Module] | None = None,
) -> None:
    """Log a stored network on its trial's run, once; its tag says which model it is.

    The model is a program of `torch.export` for any batch size; `mlflow.pytorch.load_model` needs nothing but
    torch for it. The state dict and the architecture lie beside it, for those who want to train on. MLflow's
    client is used without its global state: what this process tracks otherwise is not disturbed.

    Args:
        client: Where.
        experiment_id: Experiment of the run.
        run: The trial's run.
        folder: `<study>/models/<trial>`.
        network: Function that makes the network before pruning, where it is a user's own.
    Raises:
        TrackingError: If the network cannot be loaded or exported, now or ever.
    """
    if names.MODEL_ID in run.tags:
        return
    from mlflow.entities import LoggedModelOutput

    with _told_in_one_line(folder):  # before MLflow hears of it: not everyone may delete what is there
        pruned = models.load_model(folder, network)
    logged = client.create_logged_model(experiment_id, name=names.MODEL, source_run_id=run.run_id)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            with _told_in_one_line(folder):
                _export(Path(temporary) / "model", folder, pruned, logged, run.run_id)
            client.log_model_artifacts(logged.model_id, f"{temporary}/model")
    except BaseException:
        _withdraw(client, logged.model_id)
        raise
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])
    client.set_tag(run.run_id, names.MODEL_ID, logged.model_id)
    run.tags[names.MODEL_ID] = logged.model_id


@contextmanager
def _told_in_one_line(folder: Path) -> Iterator[None]:
    """Turn what loading and tracing a user's network raise into one line that names its folder."""
    try:
        yield
    except Exception as error:
        raise TrackingError(f"{folder} cannot become an MLflow model: {one_line(error)}") from error


def _withdraw(client: MlflowClient, model_id: str) -> None:
    """Delete a model that came to nothing, or where that is refused say so of it.

    Neither hides why it came to nothing, which the caller goes on to raise.
    """
    with suppress(Exception):
        try:
            client.delete_logged_model(model_id)
        except Exception:  # who may edit an experiment may still not delete in it
            client.finalize_logged_model(model_id, "FAILED")


def _export(target: Path, folder: Path, pruned: nn.Module, logged: LoggedModel, run_id: str) -> None:
    """Write the MLflow model of a network that is stored in `folder` to the folder `target`."""
    with warnings.catch_warnings():  # mlflow warns of its own type hints when its pyfunc module is imported
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        import mlflow.pytorch
    from mlflow.models import Model, infer_signature

    stored = read_json(folder / models.ARCHITECTURE, models.SCHEMA)
    example = torch.zeros(2, *stored["input_shape"])  # a batch of 1 would be taken for a constant
    with torch.inference_mode():
        outputs = pruned(example)
    mlflow.pytorch.save_model(
        pruned,
        str(target),
        mlflow_model=Model(artifact_path=logged.artifact_location, model_id=logged.model_id, run_id=run_id),
        input_example=example.numpy(),
        signature=infer_signature(example.numpy(), outputs.numpy()),
        pip_requirements=[f"torch=={version('torch')}"],
        extra_files=[str(folder / models.ARCHITECTURE), str(folder / models.WEIGHTS)],
        serialization_format="pt2",
    )

"""All that a tracking store holds, read through MLflow's own API, so that two moments can be compared."""

from __future__ import annotations

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient

from dirprune.tracking import names


def read_everything(uri: str) -> dict[str, Any]:
    """Return experiments' runs with all that is in them, models and versions of registered models."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    if experiment is None:
        return {}
    runs = {}
    for run in client.search_runs([experiment.experiment_id], max_results=5000):
        info = run.info
        runs[info.run_id] = {
            "info": (info.run_name, info.status, info.start_time, info.end_time),
            "tags": run.data.tags,
            "parameters": run.data.params,
            "latest": run.data.metrics,
            "metrics": {
                name: sorted(
                    (point.step, point.timestamp, point.value)
                    for point in client.get_metric_history(info.run_id, name)
                )
                for name in run.data.metrics
            },
            "files": _read_files(client, info.run_id),
        }
    models = {m.model_id: m.to_dictionary() for m in client.search_logged_models([experiment.experiment_id])}
    registered = {
        model.name: (
            dict(model.aliases),
            {v.version: dict(v) for v in client.search_model_versions(f"name = '{model.name}'")},
        )
        for model in client.search_registered_models()
    }
    return {"runs": runs, "models": models, "registered": registered}


def _read_files(client: MlflowClient, run_id: str) -> dict[str, str]:
    with TemporaryDirectory() as folder:
        if not client.list_artifacts(run_id):
            return {}
        client.download_artifacts(run_id, "", folder)
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

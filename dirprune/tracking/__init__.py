"""A study in MLflow: the only place that imports mlflow, and only when tracking is used."""

from dirprune.tracking.attach import attach_files
from dirprune.tracking.mlflow_tracker import MlflowTracker
from dirprune.tracking.server import check_server, default_tracking_uri, ui_command
from dirprune.tracking.store import is_tracked

__all__ = [
    "MlflowTracker",
    "attach_files",
    "check_server",
    "default_tracking_uri",
    "is_tracked",
    "ui_command",
]

"""A study in MLflow: the only place that imports mlflow, and only when tracking is used."""

from dirprune.tracking.mlflow_tracker import MlflowTracker
from dirprune.tracking.server import check_server, default_tracking_uri, ui_command

__all__ = ["MlflowTracker", "check_server", "default_tracking_uri", "ui_command"]

"""A study in MLflow: the only place that imports mlflow, and only when tracking is used."""

from dirprune.tracking.attach import attach_files
from dirprune.tracking.mlflow_tracker import MlflowTracker
from dirprune.tracking.registry import check_model_name, register_front
from dirprune.tracking.server import (
    check_default_store,
    check_server,
    default_tracking_uri,
    is_in_default_store,
    ui_command,
)
from dirprune.tracking.store import check_name, is_tracked
from dirprune.tracking.sync import sync_study

__all__ = [
    "MlflowTracker",
    "attach_files",
    "check_default_store",
    "check_model_name",
    "check_name",
    "check_server",
    "default_tracking_uri",
    "is_in_default_store",
    "is_tracked",
    "register_front",
    "sync_study",
    "ui_command",
]

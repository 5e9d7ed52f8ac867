"""Names and colours of all pictures and pages: standard library only, so that MLflow servers can use them."""

from __future__ import annotations

# Okabe and Ito's colours, which people with any colour vision can tell apart.
DENSE_COLOUR = "#333333"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#5B4B9A")
LABELS = {
    "macs": "MACs of one input",
    "parameters": "parameters",
    "val_accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "val_loss": "validation loss",
    "wall_time_s": "wall time in s",
}


def label_of(metric: str) -> str:
    """Return a metric's name for people."""
    return LABELS.get(metric, metric.replace("val_", "validation ", 1).replace("_", " "))

"""What a trial's report to Ray Tune is made of, by name, and what a worker is given."""

CONFIGURATION = "configuration"
FAILED = "failed"
"""A result with this key announces that the next step raises, and why."""
IMAGES = "images"
METRICS = "metrics"
IS_FINAL = "is_final"

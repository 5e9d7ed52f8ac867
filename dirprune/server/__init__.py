"""The Pareto page inside an MLflow server; it needs neither torch nor Ray."""

"""The search: Ray Tune executes, Optuna proposes and keeps the truth."""

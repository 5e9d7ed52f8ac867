"""The search: Ray Tune executes, Optuna proposes and keeps the truth. Import the modules where they are needed."""

"""What the command line of a study says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dirprune.study.objectives import Objective

NO_FLOOR = "none"
"""What stands for no least accuracy on the command line."""


@dataclass(frozen=True)
class Arguments:
    """What the command line said."""

    data: Path | str | None
    dataset: str | None
    weights: Path | None
    validation_from: str
    trials: int | None
    patience: int | None
    patience_share: float | None
    time_limit: float | None
    finalists: int | None
    final_epochs: float | None
    final_seeds: int | None
    epochs: float | None
    dense_epochs: float | None
    train_images: int | None
    judged_images: int | None
    reconstruct: bool | None
    sampler: str
    halving: str | None
    reduction_factor: float | None
    rungs: tuple[float, ...] | None
    name: str | None
    network: str | None
    resume: bool
    seed: int | None
    methods: str | None
    max_macs: float | None
    max_parameters: float | None
    max_latency: float | None
    min_val_accuracy: str | None
    objectives: tuple[Objective, ...] | None
    latency: Path | None
    latency_batch: int | None
    architectures: str | None
    warm_starts: int | None
    warm_starts_from: str | None
    min_keep_ratio: float | None
    channel_multiple: int | None
    reference_point: dict[str, float] | None
    output: Path
    storage: str
    optuna_storage: str
    tracking_uri: str | None
    no_tracking: bool
    register: str | None
    ray_address: str
    resources_per_trial: dict[str, float] | None
    cpus_per_trial: float | None
    gpus_per_trial: float | None
    workers_per_trial: int | None
    max_concurrent: int | None
    memory_mb: int

"""What a study runs on, and how: all that is not the study itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dirprune.data import Place
from dirprune.importance.base import MEMORY_MB
from dirprune.study.latency import LatencyOptions
from dirprune.study.stopping import PATIENCE_SHARE
from dirprune.tuning.cluster import Resources
from dirprune.tuning.finalists import FinalistOptions


@dataclass(frozen=True)
class RunOptions:
    """What a study runs on, and how.

    Attributes:
        output: Folder of all studies, dense networks and scores.
        data: Folder or URI of the data set; None: embedded or downloaded.
        weights: File of the dense network's weights; None trains it once.
        resume: Whether a study of that name may be continued.
        resources: What to use of which cluster.
        latency: Where latencies come from, for a study that asks for them.
        memory_mb: Memory in MiB that scoring may take, in each trial and before the first.
        storage: Where the machines exchange checkpoints, scores and models, a path or an address such as
            s3://bucket/studies; empty: all of them see `output`.
        storage_url: URL of a relational database for Optuna; empty: a journal file in the study's folder.
        sampler: What chooses the trials, one of `dirprune.tuning.samplers.CHOICES`; a resumed study may
            choose another.
        patience: Settled trials without growth of the hypervolume after which the search ends; None: never.
        patience_share: Growth that counts, as a share of the hypervolume.
        finalists: How members of the front are trained again after the search; None: not at all.
        time_limit_s: Seconds from the call after which no trial runs on, to be resumed; None: never.
    """

    output: Path = Path("output")
    data: Place | None = None
    weights: Path | None = None
    resume: bool = False
    resources: Resources = field(default_factory=Resources)
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    memory_mb: int = MEMORY_MB
    storage: str = ""
    storage_url: str = ""
    sampler: str = "auto"
    patience: int | None = None
    patience_share: float = PATIENCE_SHARE
    time_limit_s: float | None = None
    finalists: FinalistOptions | None = None

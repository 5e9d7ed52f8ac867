"""A study in one declaration: what is pruned, on which data, judged how, and where the search may go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dirprune.cost import COST_METRICS, LATENCY
from dirprune.data import DataRoles, Place, load_data
from dirprune.errors import ConfigurationError, suggest
from dirprune.halving import KINDS
from dirprune.identity import complete_identity, identify
from dirprune.networks import create_network, with_classes
from dirprune.pareto import Direction
from dirprune.study import floor
from dirprune.study.objectives import Objective
from dirprune.study.space import SearchSpace
from dirprune.tasks import Task, make_task
from dirprune.training import Recipe

CALLABLES = ("network", "data", "loss", "evaluation")
DEFAULT_OBJECTIVES = (Objective("val_accuracy", "maximize"), Objective("macs", "minimize"))


@dataclass(frozen=True)
class StudySpec:
    """Declare a study.

    Attributes:
        name: The study's name and its folder below the output folder.
        network: A network of `dirprune.networks` by name, or a function that returns an `nn.Module`.
        data: A data set of `dirprune.data` by name, or a function `(root, ...) -> DataRoles`.
        network_options: Arguments of a network given by name, such as `widths`; `n_classes` is that of the
            data by default.
        embedded: Fields to replace where no data folder is given: a small data set that needs none, and what
            suits it.
        loss: "cross_entropy", "mse" or `(outputs, targets) -> Tensor`, per example or their mean.
        evaluation: "accuracy", "mse" or `(outputs, targets) -> {metric: value}` over a whole split.
        objectives: What is traded: metrics of the evaluation as `val_<metric>`, or "macs", "parameters",
            "latency_ms".
        reference_point: Worst acceptable value of each objective, the corner of the hypervolume. By default
            the dense network's cost and chance accuracy; other metrics need a value here.
        limits: Largest "macs", "parameters" or "latency_ms" of a trial that may start. The dense network
            runs in any case, but above a limit it is not on the front and does not count.
        min_val_accuracy: Least validation accuracy of a network on the front, 0.95 say, or "dense-0.02": two
            points below the dense network. The search looks for none below it, and none counts.
        space: What a trial may choose.
        trials: Trials to start in all.
        epochs: Fine-tuning of a trial, in passes over the training role (fractions are fine).
        rungs: Epochs after which a trial may be stopped; 0 is right after pruning. Those from `epochs` on do
            nothing, and are warned of.
        reduction_factor: At a rung one trial in this many goes on; >= 2.
        halving: What becomes of the others: "stopping" ends them, "promoting" lets them pause until they are
            among the best, or the study ends; "none": there are no others. Trials that the sampler did not
            choose always run to their end: they are what it has to improve on.
        dense: How the dense network is trained where no weights are given; `dense_epochs` sets its `images`.
        dense_epochs: Passes over the training role for the dense network.
        fine_tuning: Fine-tuning recipe; the space's hyperparameters replace its fields.
        final_fine_tuning: Fields of the recipe that finalists are trained with instead, `{"shift": 1}` say:
            what pays in a long training only. They come before the space's hyperparameters.
        reconstruct: Whether a trial refits the layers behind its cuts to the dense network's outputs by least
            squares before it is fine-tuned; else it estimates batch-norm statistics anew.
        validation_from: "train:F" or "test:F"; empty: by where the weights come from.
        train_images: Training images to use; None: all.
        judged_images: Images of validation, and as many of test, on which networks are judged; None: all.
        seed: The study's seed, >= 0. Fine-tuning follows from it and the trial's number, that of finalists
            from the repetition as well. Scores follow from it alone: a study has one draw of each stochastic
            method, and finalists repeat the fine-tuning only.
        identities: Filled in: what network, data, loss and evaluation were when they were declared, each with
            the object that this was said of. Later they may carry tensors that have moved in use.

    Raises:
        ConfigurationError: If the study could not run as it is declared.
    """

    name: str
    network: str | Callable[[], nn.Module]
    data: str | Callable[..., DataRoles]
    network_options: Mapping[str, Any] = field(default_factory=dict)
    embedded: Mapping[str, Any] = field(default_factory=dict)
    loss: str | Callable[[Tensor, Tensor], Tensor] = "cross_entropy"
    evaluation: str | Callable[[Tensor, Tensor], Mapping[str, float]] = "accuracy"
    objectives: tuple[Objective, ...] = DEFAULT_OBJECTIVES
    reference_point: Mapping[str, float] | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    min_val_accuracy: str | float | None = None
    space: SearchSpace = field(default_factory=SearchSpace)
    trials: int = 40
    epochs: float = 5.0
    rungs: tuple[float, ...] = (0.0, 1.0)
    reduction_factor: float = 2.0
    halving: str = "stopping"
    dense: Recipe = field(default_factory=lambda: Recipe(images=0))
    dense_epochs: float = 20.0
    fine_tuning: Recipe = field(default_factory=lambda: Recipe(images=0))
    final_fine_tuning: Mapping[str, Any] = field(default_factory=dict)
    reconstruct: bool = True
    validation_from: str = ""
    train_images: int | None = None
    judged_images: int | None = None
    seed: int = 0
    identities: Mapping[str, tuple[Any, dict[str, Any]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.name or self.name != Path(self.name).name or self.name.startswith("."):
            raise ConfigurationError(
                f"study name must be one plain folder name, got {self.name!r}; try 'lenet'"
            )
        if self.trials < 1:
            raise ConfigurationError(f"trials must be at least 1, got {self.trials}; try --trials 40")
        for name, epochs in (("epochs", self.epochs), ("dense_epochs", self.dense_epochs)):
            if not (epochs > 0 and math.isfinite(epochs)):
                raise ConfigurationError(
                    f"{name} must be above 0 and finite, got {epochs}; fractions such as 0.5 are fine"
                )
        is_increasing = all(low < high for low, high in pairwise(self.rungs))
        if not is_increasing or not all(rung >= 0 and math.isfinite(rung) for rung in self.rungs):
            raise ConfigurationError(
                f"rungs must be increasing, finite epochs from 0, got {self.rungs}; try (0, 1, 3)"
            )
        if not (self.reduction_factor >= 2 and math.isfinite(self.reduction_factor)):
            raise ConfigurationError(
                f"reduction factor must be at least 2 and finite, got {self.reduction_factor}; "
                "2 lets every second trial go on"
            )
        if self.halving not in KINDS:
            raise ConfigurationError(f"unknown halving {self.halving!r}{suggest(self.halving, KINDS)}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigurationError(f"seed must be a whole number from 0, got {self.seed}; try 0")
        object.__setattr__(self, "identities", {part: self._identify(part) for part in CALLABLES})
        known = {entry.name for entry in fields(Recipe)} - {"images"}
        for name in self.final_fine_tuning:
            if name not in known:
                raise ConfigurationError(f"unknown field {name!r} of a recipe{suggest(name, known)}")
        final = replace(self.fine_tuning, **self.final_fine_tuning)  # raises where a value cannot work
        for recipe in (self.dense, self.fine_tuning, final):
            self.task().check_smoothing(recipe.label_smoothing)
        self._check_objectives()

    def _identify(self, part: str) -> tuple[Any, dict[str, Any]]:
        target = getattr(self, part)
        known = self.identities.get(part)
        return known if known is not None and known[0] is target else (target, identify(target))

    def _check_objectives(self) -> None:
        if not self.objectives:
            raise ConfigurationError(
                "a study needs at least one objective, got none; try val_accuracy:maximize"
            )
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise ConfigurationError(f"each objective may be given once, got {', '.join(metrics)}")
        for metric in metrics:
            if not metric.startswith("val_") and metric not in (*COST_METRICS, LATENCY):
                known = [*COST_METRICS, LATENCY, "val_accuracy"]
                raise ConfigurationError(f"unknown objective {metric!r}{suggest(metric, known)}")
        for metric, value in (self.reference_point or {}).items():
            if metric not in metrics:
                raise ConfigurationError(
                    f"reference point names {metric!r}, no objective{suggest(metric, metrics)}"
                )
            if not math.isfinite(value):
                raise ConfigurationError(
                    f"reference value of {metric} must be finite, got {value}; give the worst acceptable"
                )
            if metric.endswith("accuracy") and not 0 <= value <= 1:
                raise ConfigurationError(
                    f"accuracy is a fraction in [0, 1], got {metric}={value:g}; {value:g}% is {value / 100:g}"
                )
        if self.min_val_accuracy is not None:
            floor.check_floor(self.min_val_accuracy)
            if Objective(floor.METRIC, "maximize") not in self.objectives:
                raise ConfigurationError(
                    f"expected {floor.METRIC}:maximize among the objectives, of which the study asks for at "
                    f"least {self.min_val_accuracy}, got {', '.join(map(str, self.objectives))}; add it, or "
                    "leave the least accuracy out (--min-val-accuracy none)"
                )
        for metric, limit in self.limits.items():
            if metric not in (*COST_METRICS, LATENCY):
                known = [*COST_METRICS, LATENCY]
                raise ConfigurationError(f"limits know costs only, got {metric!r}{suggest(metric, known)}")
            if not limit > 0:
                raise ConfigurationError(
                    f"limit of {metric} must be above 0, got {limit}; leave it out for none"
                )

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The direction of each objective, in order."""
        return tuple(objective.direction for objective in self.objectives)

    @property
    def traded_cost(self) -> str:
        """The first objective that is a cost; where there is none, the cost of the space's targets."""
        metrics = [objective.metric for objective in self.objectives]
        return next((m for m in metrics if m in (*COST_METRICS, LATENCY)), self.space.cost)

    @property
    def needs_latency(self) -> bool:
        """Whether trials are judged or limited by latency."""
        return LATENCY in self.limits or LATENCY in [objective.metric for objective in self.objectives]

    def task(self) -> Task:
        """Return loss and evaluation as one task."""
        return make_task(
            self.loss,
            self.evaluation,
            loss_identity=self.identity("loss"),
            evaluation_identity=self.identity("evaluation"),
        )

    def identity(self, part: str) -> dict[str, Any]:
        """Return what "network", "data", "loss" or "evaluation" was when it was declared, as plain data."""
        return dict(self.identities[part][1])

    def identify_network(self) -> dict[str, Any]:
        """Return the network's identity with its options."""
        return {**self.identity("network"), "options": dict(self.network_options)}

    def create_network(self) -> nn.Module:
        """Build the dense network, with fresh weights."""
        return create_network(self.network, self.network_options)

    def load_data(self, root: Place | None, validation_from: str, seed: int) -> DataRoles:
        """Load the four roles.

        Args:
            root: Folder or URI of the data set.
            validation_from: "train:F" or "test:F".
            seed: Seed of the cut; that of the study unless the weights were trained on another cut.
        """
        roles = load_data(
            self.data, root, validation_from=validation_from, train_limit=self.train_images, seed=seed
        )
        return roles if self.judged_images is None else roles.judged_on(self.judged_images, seed)

    def images(self, epochs: float, roles: DataRoles) -> int:
        """Return the resource of so many epochs, in training images."""
        return round(epochs * len(roles.train))

    def resolve_reference(self, roles: DataRoles, dense_costs: Mapping[str, float]) -> dict[str, float]:
        """Return the hypervolume's reference value of every objective, without a latency not known yet.

        Raises:
            ConfigurationError: If any other objective has neither a given nor a default value.
        """
        given = self.reference_point or {}
        resolved: dict[str, float] = {}
        for objective in self.objectives:
            metric = objective.metric
            if metric in given:
                resolved[metric] = float(given[metric])
            elif metric in dense_costs:
                resolved[metric] = float(dense_costs[metric])
            elif metric == "val_accuracy" and roles.n_classes:
                resolved[metric] = 1.0 / roles.n_classes
            elif metric != LATENCY:
                raise ConfigurationError(
                    f"objective {metric} has no default reference value; give its worst acceptable value, "
                    f"for example reference_point={{'{metric}': 1.0}}"
                )
        return resolved

    def for_data(self, root: Place | None) -> StudySpec:
        """Return the study as it is with a data folder, or without one."""
        return replace(self, embedded={}, **(self.embedded if root is None else {}))

    def for_classes(self, n_classes: int | None) -> StudySpec:
        """Return the study with as many outputs as the data have classes, where it is about classes."""
        if self.loss != "cross_entropy":
            return self
        return replace(self, network_options=with_classes(self.network, self.network_options, n_classes))

    def changed(self, **changes: Any) -> StudySpec:
        """Return a copy with some fields replaced; None leaves a field as it is."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def describe(self) -> dict[str, Any]:
        """Return what must be the same for a study to be continued, as plain data."""
        return {
            "network": complete_identity(self.identify_network()),
            **{part: complete_identity(self.identity(part)) for part in CALLABLES if part != "network"},
            "objectives": [[o.metric, o.direction] for o in self.objectives],
            "limits": dict(self.limits),
            "min_val_accuracy": floor.normalise(self.min_val_accuracy),
            "space": self.space.describe(),
            "epochs": self.epochs,
            "rungs": list(self.rungs),
            "reduction_factor": self.reduction_factor,
            "halving": self.halving,
            "reconstruct": self.reconstruct,
            "fine_tuning": {key: value for key, value in asdict(self.fine_tuning).items() if key != "images"},
            "final_fine_tuning": dict(self.final_fine_tuning),
            "seed": self.seed,
        }

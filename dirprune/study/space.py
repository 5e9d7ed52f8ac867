"""The choices of a trial: kept channels per group, importance method and options, fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from dirprune.architecture import Architecture
from dirprune.cost import COST_METRICS, CostModel
from dirprune.errors import ConfigurationError, suggest
from dirprune.groups import Grouping
from dirprune.importance import Method, Scorer, create, get_method
from dirprune.study.shapes import PER_GROUP, RANKED, SHAPES, Ranking, Shapes, Suggests, make_shapes
from dirprune.training import Recipe

PLAIN_METHOD = "magnitude"
CURVES, PATH = "curves", "path"
OWN_METHODS = "own_methods"
WARM_STARTS_FROM = (CURVES, PATH)
DEFAULT_METHODS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "magnitude": {"norm": ("l1", "l2")},
    "taylor": {},
    "fisher": {},
    "dirichlet": {"estimator": ("point", "integral")},
}


@dataclass(frozen=True)
class Range:
    """A real hyperparameter between `low` and `high`, drawn on a logarithmic scale when `log` is set.

    Raises:
        ConfigurationError: If the ends are not finite or in the wrong order, or a logarithm has no value.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if not all(isinstance(end, int | float) and math.isfinite(end) for end in ends):
            raise ConfigurationError(
                f"a range needs two finite numbers, got {self.low!r} and {self.high!r}; try Range(0.0, 1.0)"
            )
        if self.low > self.high:
            raise ConfigurationError(
                f"a range must go from its lowest value to its highest, got {self.low:g} to {self.high:g}; "
                f"try Range({self.high:g}, {self.low:g})"
            )
        if self.log and self.low <= 0:
            raise ConfigurationError(
                f"a logarithmic range must begin above 0, got {self.low:g}; try 0.001, or log=False"
            )

    @property
    def middle(self) -> float:
        """The value in the middle, on the range's own scale."""
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return min(max(middle, self.low), self.high)  # rounding may leave a narrow range


@dataclass(frozen=True)
class Choice:
    """A hyperparameter that takes one of `values` (strings, numbers or booleans).

    Raises:
        ConfigurationError: If there is no value to take.
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, tuple | list) or not self.values:
            raise ConfigurationError(
                f"a choice needs a tuple of at least one value, got {self.values!r}; try Choice((32, 64))"
            )


@dataclass(frozen=True)
class Configuration:
    """The choices of one trial, and where they came from.

    Attributes:
        number: The trial's number in its study, from 0.
        source: "dense", "uniform", "reference" or "sampler".
        architecture: Kept channels per group.
        method: Name of the importance method; it ranks the channels of each group.
        method_options: Options of the method.
        fine_tuning: Fields of `Recipe` that this trial sets; "epochs" is not one of them.
    """

    number: int
    source: str
    architecture: Architecture
    method: str
    method_options: Mapping[str, Any]
    fine_tuning: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain data."""
        return {
            "number": self.number,
            "source": self.source,
            "architecture": self.architecture.to_json(),
            "method": self.method,
            "method_options": dict(self.method_options),
            "fine_tuning": dict(self.fine_tuning),
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Configuration:
        """Rebuild a configuration from `to_json`."""
        return cls(**{**payload, "architecture": Architecture.from_json(payload["architecture"])})


@dataclass(frozen=True)
class SearchSpace:
    """What a study may choose.

    Attributes:
        min_keep_ratio: Smallest kept / original channels of a group, in (0, 1]; at least one channel stays.
        methods: Importance methods by name, each with the values that its options may take.
        fine_tuning: Hyperparameters by the name of a `Recipe` field.
        architectures: How architectures are drawn: "per-group", a width for each group, "budgeted", a cost
            target drawn evenly from what can be reached and an offset for each group, or "ranked", such a
            target and one threshold for the scores of the trial's method, with an offset for each group.
        cost: The cost of the target: "macs" or "parameters".
        max_offset: Largest absolute offset; with 1 a group of keep ratio 0.5 may go from 0.15 to 0.77.
        channel_multiple: Widths are multiples of this (hardware likes 8), apart from a group's whole width.
            A group of fewer channels stays whole. Where channels go in parts, they are counted, not the
            parts: with parts of 16 every width is a multiple of 8.
        uniform_keep_ratios: Keep ratios of the trials that cut every group alike, right after the dense one.
        reference_architectures: Known good ones to start from, such as "8,9,36,17" in forward order.
        warm_starts: Further trials to start from, which promise most for their cost; >= 0. At most half of a
            study's trials are.
        warm_starts_from: What tells of a promise: "curves", what the network loses when its groups are cut
            one at a time, or "path", what it loses along greedy elimination over all groups.

    Raises:
        ConfigurationError: If a keep ratio or a hyperparameter could not be used by a trial.
        ImportanceError: If a method is unknown, or an option of it or its value.
    """

    min_keep_ratio: float = 0.1
    methods: Mapping[str, Mapping[str, Sequence[Any]]] = field(default_factory=lambda: DEFAULT_METHODS)
    fine_tuning: Mapping[str, Range | Choice] = field(default_factory=dict)
    architectures: str = PER_GROUP
    cost: str = "macs"
    max_offset: float = 1.0
    channel_multiple: int = 1
    uniform_keep_ratios: tuple[float, ...] = (0.75, 0.5, 0.3)
    reference_architectures: tuple[str, ...] = ()
    warm_starts: int = 16
    warm_starts_from: str = CURVES

    def __post_init__(self) -> None:
        for ratio in (self.min_keep_ratio, *self.uniform_keep_ratios):
            if not 0 < ratio <= 1:
                raise ConfigurationError(f"keep ratio must be in (0, 1], got {ratio}; 50% is 0.5")
        if self.architectures not in SHAPES:
            raise ConfigurationError(
                f"unknown kind of architectures {self.architectures!r}{suggest(self.architectures, SHAPES)}"
            )
        if self.cost not in COST_METRICS:
            raise ConfigurationError(f"unknown cost {self.cost!r}{suggest(self.cost, COST_METRICS)}")
        if not (self.max_offset > 0 and math.isfinite(self.max_offset)):
            raise ConfigurationError(f"max_offset must be above 0 and finite, got {self.max_offset}; try 1")
        if self.channel_multiple < 1:
            raise ConfigurationError(
                f"channel multiple must be at least 1, got {self.channel_multiple}; 8 suits most GPUs"
            )
        if self.warm_starts < 0:
            raise ConfigurationError(f"warm starts must be at least 0, got {self.warm_starts}; 0 has none")
        if self.warm_starts_from not in WARM_STARTS_FROM:
            hint = suggest(self.warm_starts_from, WARM_STARTS_FROM)
            raise ConfigurationError(f"unknown source of warm starts {self.warm_starts_from!r}{hint}")
        if not self.methods:
            raise ConfigurationError(
                "a search space needs at least one importance method, got none; try magnitude"
            )
        for method, options in self.methods.items():
            for option, values in options.items():
                if not values:
                    raise ConfigurationError(
                        f"option {option} of {method} needs at least one value, got none; "
                        "leave it out for its default"
                    )
                for value in values:
                    create(method, {option: value})
            if not isinstance(create(method, {}), Scorer) and self.architectures == RANKED:
                raise ConfigurationError(
                    f"ranked architectures need scores of channels, which {method} does not give; "
                    "try budgeted ones, or leave the method out"
                )
        for name, choice in self.fine_tuning.items():
            _check_hyperparameter(name, choice)

    def restricted(self, methods: Sequence[str]) -> SearchSpace:
        """Return the space with only these methods (with the options that it has for them)."""
        options = {name: self.methods.get(name, DEFAULT_METHODS.get(name, {})) for name in methods}
        return replace(self, methods=options)

    def lowest(self, n_channels: int, channels_per_part: int = 1) -> int:
        """Return the fewest channels that a group of `n_channels` may keep: a multiple, or all.

        Args:
            n_channels: The group's.
            channels_per_part: Of the group's first layer; see `ChannelGroup`.
        """
        step = self._step(channels_per_part)
        return min(step * math.ceil(self._least(n_channels) / step), n_channels)

    def lowest_widths(self, groups: Grouping | CostModel) -> dict[str, int]:
        """Return the fewest channels that each group of a network may keep."""
        return {name: self.lowest(n, groups.channels_per_part[name]) for name, n in groups.n_channels.items()}

    def multiples(self, groups: Grouping | CostModel) -> dict[str, int]:
        """Return what the widths of each group of a network are multiples of, apart from the whole one."""
        return {name: self._step(n) for name, n in groups.channels_per_part.items()}

    def _step(self, channels_per_part: int) -> int:
        """Return the fewest parts whose channels are a multiple; widths are multiples of it."""
        return self.channel_multiple // math.gcd(self.channel_multiple, channels_per_part)

    def _least(self, n_channels: int) -> int:
        """Return what the least keep ratio alone allows."""
        return max(1, math.ceil(self.min_keep_ratio * n_channels - 1e-9))

    def shapes(self, costs: CostModel, limits: Mapping[str, float], ranking: Ranking | None = None) -> Shapes:
        """Return how architectures of a network are drawn.

        Args:
            costs: Costs of its architectures.
            limits: Highest cost of a trial by metric; a budgeted space draws no target above its own, and a
                per-group one nothing above any.
            ranking: The methods' scores, without which a ranked space draws nothing.

        Raises:
            ConfigurationError: If nothing in the space is as cheap as a limit, or nothing can be cut.
        """
        least, wider = self.lowest_widths(costs), self._find_what_widens(costs)
        if least == costs.n_channels:
            raise ConfigurationError(
                "expected a space in which some group can be cut, got one in which all of them stay whole; "
                f"try {' or '.join(wider) or 'another network'}"
            )
        lowest, whole = costs.costs(least).as_dict(), costs.costs(costs.n_channels).as_dict()
        for metric, bound in limits.items():
            if bound < lowest[metric]:
                raise ConfigurationError(
                    f"{metric} can be from {lowest[metric]:,.10g} to {whole[metric]:,.10g} in this space, "
                    f"got a limit of {bound:,.10g}; try {', or '.join(['a higher one', *wider])}"
                )
        return make_shapes(
            self.architectures,
            costs,
            self.cost,
            least,
            self.multiples(costs),
            limits,
            self.max_offset,
            ranking,
        )

    def _find_what_widens(self, costs: CostModel) -> list[str]:
        """Return what would let some group keep fewer channels, in words for who made the space."""
        least, steps = self.lowest_widths(costs), self.multiples(costs)
        share = f"a smaller share of each group than {self.min_keep_ratio:g} (--min-keep-ratio)"
        multiple = f"a smaller channel multiple than {self.channel_multiple} (--channel-multiple)"
        hints = []
        if any(least[name] > min(steps[name], n) for name, n in costs.n_channels.items()):
            hints.append(share)
        if any(least[name] > self._least(n) for name, n in costs.n_channels.items()):
            hints.append(multiple)
        if not hints and any(n > 1 for n in least.values()):  # each alone asks for as many
            hints.append(f"{share} together with {multiple}")
        return hints

    def first_trials(self, grouping: Grouping) -> list[tuple[str, Architecture]]:
        """Return what every study starts with: dense, uniform, then reference architectures.

        Uniform ones have the space's channel multiple, reference architectures are what they are.

        Returns:
            (source, architecture) pairs.

        Raises:
            ArchitectureError: If a reference architecture does not fit the network.
            ConfigurationError: If it is outside the space.
        """
        sizes = {group.name: group.n_channels for group in grouping.groups}
        trials = [("dense", Architecture.full(grouping))]
        for ratio in self.uniform_keep_ratios:
            kept = Architecture.uniform(grouping, ratio)
            trials.append(("uniform", self._allow(kept, grouping)))
        for text in self.reference_architectures:
            kept = Architecture.parse(text, grouping)
            for name, size in sizes.items():
                if kept[name] < self._least(size):
                    raise ConfigurationError(
                        f"reference architecture {text} keeps {kept[name]} channels of {name}, the space "
                        f"{self._least(size)} to {size}; try a lower min_keep_ratio than "
                        f"{self.min_keep_ratio:g}"
                    )
            trials.append(("reference", kept))
        first: dict[Architecture, str] = {}  # each once: with few channels some of them are the same
        for source, kept in trials:
            first.setdefault(kept, source)
        return [(source, kept) for kept, source in first.items()]

    def _allow(self, architecture: Architecture, grouping: Grouping) -> Architecture:
        """Return the nearest numbers of channels that the space has for each group."""
        least, steps = self.lowest_widths(grouping), self.multiples(grouping)
        rounded = {name: steps[name] * round(n / steps[name]) for name, n in architecture.items()}
        return Architecture(
            {name: min(max(rounded[name], least[name]), n) for name, n in grouping.n_channels.items()}
        )

    def plain_choices(self) -> dict[str, Any]:
        """Return what somebody would take who does not search, as parameters of a trial.

        Magnitude where the space has it, the first value of every choice and the middle of every range: the
        uniform and reference architectures are what others are compared with, and should not depend on luck.
        """
        method = PLAIN_METHOD if PLAIN_METHOD in self.methods else next(iter(self.methods))
        options = {f"{method}.{name}": values[0] for name, values in self.methods[method].items()}
        fine_tuning = {
            f"fine_tuning.{name}": choice.middle if isinstance(choice, Range) else choice.values[0]
            for name, choice in self.fine_tuning.items()
        }
        return {"method": method, **options, **fine_tuning}

    def suggest(
        self,
        trial: Suggests,
        shapes: Shapes,
        number: int,
        source: str,
        architecture: Architecture | None = None,
    ) -> Configuration:
        """Draw one configuration.

        Args:
            trial: The sampler's trial.
            shapes: From `shapes`, for the network.
            number: The trial's number.
            source: Where a given architecture came from; "sampler" otherwise.
            architecture: The trial's own one, where it is given; what is drawn then stands for it.
        """
        method = trial.suggest_categorical("method", sorted(self.methods))
        options = {
            name: trial.suggest_categorical(f"{method}.{name}", list(values))
            for name, values in self.methods[method].items()
        }
        drawn = shapes.suggest(trial, method, options)
        fine_tuning = {
            name: _draw(trial, f"fine_tuning.{name}", choice) for name, choice in self.fine_tuning.items()
        }
        return Configuration(number, source, architecture or drawn, method, options, fine_tuning)

    def users_own(self) -> dict[str, Method]:
        """Return the methods among those of the space that are from outside this package, by name."""
        known = {name: get_method(name) for name in sorted(self.methods)}
        return {name: method for name, method in known.items() if method.is_users_own}

    def describe(self) -> dict[str, Any]:
        """Return the space as plain data; two spaces are the same when their descriptions are.

        Methods from outside this package are in it with their code.
        """
        own = {name: method.code_sha256 for name, method in self.users_own().items()}
        return {
            **({OWN_METHODS: own} if own else {}),
            "min_keep_ratio": self.min_keep_ratio,
            "architectures": self.architectures,
            "cost": self.cost,
            "max_offset": self.max_offset,
            "channel_multiple": self.channel_multiple,
            "methods": {
                method: {option: list(values) for option, values in sorted(options.items())}
                for method, options in sorted(self.methods.items())
            },
            "fine_tuning": {
                name: [choice.low, choice.high, choice.log]
                if isinstance(choice, Range)
                else list(choice.values)
                for name, choice in sorted(self.fine_tuning.items())
            },
            "uniform_keep_ratios": list(self.uniform_keep_ratios),
            "reference_architectures": list(self.reference_architectures),
            "warm_starts": self.warm_starts,
            "warm_starts_from": self.warm_starts_from,
        }


def _check_hyperparameter(name: str, choice: Range | Choice) -> None:
    """Raise unless the field of `Recipe` takes every value that a trial may draw for it."""
    known = {entry.name: entry.type for entry in fields(Recipe) if entry.name != "images"}
    if name not in known:
        raise ConfigurationError(f"unknown fine-tuning hyperparameter {name!r}{suggest(name, known)}")
    if not isinstance(choice, Range | Choice):
        raise ConfigurationError(
            f"expected a Range or a Choice for {name}, got {choice!r}; try Choice((value, value))"
        )
    if isinstance(choice, Range) and known[name] != "float":
        raise ConfigurationError(
            f"{name} takes no real number from a range, got {choice.low:g} to {choice.high:g}; "
            "try Choice((value, value))"
        )
    values = (choice.low, choice.high) if isinstance(choice, Range) else choice.values
    for value in values:
        Recipe(images=0, **{name: value})


def _draw(trial: Suggests, name: str, choice: Range | Choice) -> Any:
    if isinstance(choice, Range):
        return trial.suggest_float(name, choice.low, choice.high, log=choice.log)
    return trial.suggest_categorical(name, list(choice.values))

"""An architecture: how many channels each channel group keeps."""

from __future__ import annotations

import fnmatch
import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dirprune.errors import ArchitectureError, suggest
from dirprune.groups import Grouping

N_VGG16 = 14
"""Channel groups of VGG-16 for CIFAR."""


@dataclass(frozen=True, eq=False)
class Architecture(Mapping[str, int]):
    """Kept channels per channel group: a hashable mapping, in forward order when made for a grouping.

    Two architectures, or an architecture and a plain mapping, are equal when they keep the same number of
    channels of the same groups, in whatever order.

    Attributes:
        kept: Number of kept channels, >= 1, by the group's name.
    """

    kept: Mapping[str, int]

    def __post_init__(self) -> None:
        checked = {}
        for name, value in self.kept.items():
            try:
                n_kept = operator.index(value)
            except TypeError:
                raise ArchitectureError(
                    f"expected a whole number of channels for {name}, got {value!r}"
                ) from None
            if isinstance(value, bool) or n_kept < 1:
                raise ArchitectureError(f"expected at least 1 kept channel for {name}, got {value!r}")
            checked[name] = n_kept
        object.__setattr__(self, "kept", checked)

    def __getitem__(self, name: str) -> int:
        return self.kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def __hash__(self) -> int:
        return hash(frozenset(self.kept.items()))

    def __str__(self) -> str:
        return "-".join(str(n_kept) for n_kept in self.kept.values())

    @classmethod
    def full(cls, grouping: Grouping) -> Architecture:
        """Return the architecture that keeps every channel."""
        return cls({name: grouping.n_channels[name] for name in grouping.names})

    @classmethod
    def uniform(cls, grouping: Grouping, keep_ratio: float) -> Architecture:
        """Return the architecture that keeps the same share of every group, rounded, at least one channel.

        Args:
            grouping: The groups.
            keep_ratio: Kept / original channels of each group, in (0, 1].
        Raises:
            ArchitectureError: If the keep ratio is outside (0, 1].
        """
        if not (math.isfinite(keep_ratio) and 0 < keep_ratio <= 1):
            raise ArchitectureError(f"keep ratio must be in (0, 1], got {keep_ratio:g}; 50% is 0.5")
        full = cls.full(grouping)
        return cls({name: max(1, round(keep_ratio * n_channels)) for name, n_channels in full.items()})

    @classmethod
    def parse(cls, text: str, grouping: Grouping) -> Architecture:
        """Read an architecture as people write it: "8,9,36,17", or "8-9-36-17" as `str` gives it.

        Args:
            text: Kept channels of every group, in forward order; of VGG-16's 14 groups 15 numbers whose last
                two are equal are taken as well, as Dirichlet pruning writes them. Or, for ResNets, one number
                for each stage or for each block (`layer1.0.`, `layer1.1.`, ...): what the groups inside its
                blocks keep; the stem and what blocks add up stay whole. Patterns of names behind the numbers,
                or alone, say otherwise, such as "8,20,layer1.*.conv1=6": the last one that fits counts.
                Groups of which nothing is said stay whole.
            grouping: The groups.
        Raises:
            ArchitectureError: If there are too many or too few numbers, one is no number, zero, negative or
                larger than its group, or a pattern fits no group.
        """
        text = text.strip()
        parts = [part.strip() for part in _split(text)]
        patterns = [part for part in parts if "=" in part]
        numbers = [part for part in parts if "=" not in part]
        if parts != numbers + patterns:
            raise ArchitectureError(f"expected numbers before names, as in 8,20,conv1=12, got {text!r}")
        given = _assign(numbers, grouping, text) if numbers else {}
        for part in patterns:
            pattern, _, number = (piece.strip() for piece in part.partition("="))
            fitting = fnmatch.filter(grouping.names, pattern)
            if not fitting:
                raise ArchitectureError(
                    f"expected the name of a channel group or a pattern of names, got {pattern!r}"
                    + suggest(pattern, grouping.names)
                )
            given |= dict.fromkeys(fitting, number)
        whole = grouping.n_channels
        return cls(
            {name: _read(given[name], name, grouping) if name in given else whole[name] for name in whole}
        )

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> Architecture:
        """Return the architecture of a mapping that `to_json` gave.

        Raises:
            ArchitectureError: If it is not a mapping of group names to positive whole numbers.
        """
        if not isinstance(payload, Mapping):
            raise ArchitectureError(f"expected kept channels by group, got a {type(payload).__name__}")
        return cls(payload)

    def to_json(self) -> dict[str, int]:
        """Return the kept channels by group as plain data for a JSON file."""
        return dict(self.kept)

    @classmethod
    def complete(cls, kept: Mapping[str, int], grouping: Grouping) -> Architecture:
        """Return the architecture in which the groups that are not named keep all channels.

        Raises:
            ArchitectureError: If a group is unknown, or keeps no channel or more than it has.
        """
        return cls({**grouping.n_channels, **kept}).validate(grouping)

    def validate(self, grouping: Grouping) -> Architecture:
        """Check that this architecture fits the groups, and return it in their forward order.

        Raises:
            ArchitectureError: If a group is missing or unknown, or keeps more channels than it has.
        """
        for name in self.kept:
            if name not in grouping.n_channels:
                raise ArchitectureError(f"unknown channel group {name!r}{suggest(name, grouping.names)}")
        for name in grouping.names:
            if name not in self.kept:
                groups = ", ".join(grouping.names)
                raise ArchitectureError(f"expected kept channels for each of {groups}, got none for {name!r}")
            _check_range(name, self.kept[name], grouping.n_channels[name])
        return Architecture({name: self.kept[name] for name in grouping.names})


def _assign(numbers: Sequence[str], grouping: Grouping, text: str) -> dict[str, str]:
    """Return which group each number is meant for; numbers of stages and blocks leave out other groups."""
    names = grouping.names
    if len(numbers) == N_VGG16 + 1 == len(names) + 1 and numbers[-1] == numbers[-2]:
        numbers = numbers[:-1]
    if len(numbers) == len(names):
        return dict(zip(names, numbers, strict=True))
    stages, blocks = _find_stages(grouping)
    for places in (stages, blocks):
        order = list(dict.fromkeys(places.values()))
        if len(numbers) == len(order):
            return {name: numbers[order.index(place)] for name, place in places.items()}
    groups = ", ".join(f"{name} ({grouping.n_channels[name]})" for name in names)
    n_stages, n_blocks = len(set(stages.values())), len(set(blocks.values()))
    shorter = f", or {n_stages} for the stages, or {n_blocks} for the blocks" if stages else ""
    raise ArchitectureError(
        f"expected {len(names)} numbers, one for each of {groups}{shorter}, got {len(numbers)}: {text!r}"
    )


def _find_stages(grouping: Grouping) -> tuple[dict[str, str], dict[str, str]]:
    """Return the stage and the block of each group that lies inside one block of a ResNet."""
    stages, blocks = {}, {}
    for group in grouping.groups:
        found = re.match(r"(layer\d+\.)(\d+\.)?", group.name)
        slots = (*group.producers, *group.consumers)
        if found and all(slot.module.startswith(found[0]) for slot in slots):
            stages[group.name], blocks[group.name] = found[1], found[0]
    return stages, blocks


def _split(text: str) -> list[str]:
    """Return the parts of an architecture as people write it, or as tables do: 8-9-36-17."""
    return text.split("-" if re.fullmatch(r"\d+(-\d+)+", text) else ",")


def check_form(text: str) -> None:
    """Check what can be known of an architecture as people write it before there is a network.

    Raises:
        ArchitectureError: If it holds something else than whole numbers, or patterns with them.
    """
    for part in _split(text.strip()):
        number = part.rpartition("=")[2].strip()
        if number and not re.fullmatch(r"-?\d+", number):
            raise ArchitectureError(
                f"expected whole numbers of kept channels, got {number!r} in {text!r}; for example 8,9,36,17"
            )


def _read(text: str, name: str, grouping: Grouping) -> int:
    n_channels = grouping.n_channels[name]
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ArchitectureError(f"expected a whole number in 1..{n_channels} for {name}, got {text!r}")
    _check_range(name, int(text), n_channels)
    return int(text)


def _check_range(name: str, n_kept: int, n_channels: int) -> None:
    if not 1 <= n_kept <= n_channels:
        raise ArchitectureError(f"kept channels of {name} must be in 1..{n_channels}, got {n_kept}")

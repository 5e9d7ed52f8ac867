"""An architecture: how many channels each channel group keeps."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dirprune.errors import ArchitectureError, suggest
from dirprune.groups import Grouping


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
            text: Kept channels of every group, in forward order.
            grouping: The groups.
        Raises:
            ArchitectureError: If there are too many or too few numbers, or one is no number, zero,
                negative or larger than its group.
        """
        text = text.strip()
        parts = text.split("-" if re.fullmatch(r"\d+(-\d+)+", text) else ",")
        parts = [part.strip() for part in parts]
        names = list(grouping.names)
        if len(parts) != len(names):
            groups = ", ".join(f"{name} ({grouping.n_channels[name]})" for name in names)
            raise ArchitectureError(
                f"expected {len(names)} numbers, one for each of {groups}, got {len(parts)}: {text!r}"
            )
        kept = {}
        for name, part in zip(names, parts, strict=True):
            if not re.fullmatch(r"[+-]?[0-9]+", part):
                raise ArchitectureError(
                    f"expected a whole number in 1..{grouping.n_channels[name]} for {name}, got {part!r}"
                )
            kept[name] = int(part)
            _check_range(name, kept[name], grouping.n_channels[name])
        return cls(kept)

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


def _check_range(name: str, n_kept: int, n_channels: int) -> None:
    if not 1 <= n_kept <= n_channels:
        raise ArchitectureError(f"kept channels of {name} must be in 1..{n_channels}, got {n_kept}")

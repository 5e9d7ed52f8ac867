"""Channel groups: which channels must be kept or removed together, as plain data without a network in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from dirprune.errors import ArchitectureError, ConfigurationError, suggest
from dirprune.identity import digest

N_REASONS = 3
"""Reasons against groups that an error has room for."""


@dataclass(frozen=True)
class Slot:
    """One axis of one module that a channel group occupies.

    Attributes:
        module: Module path; for a parameter outside any known layer, the parameter's path.
        channel_of: For each index on that axis, the group's channel, or -1 where the group is not meant.
            After a flatten, several neighbouring indices belong to one channel.
    """

    module: str
    channel_of: tuple[int, ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of several layers that must be kept or removed together.

    Attributes:
        name: Module path of the group's first layer in forward order.
        n_channels: Channels of the uncut group.
        producers: Output axes: convolutions, linear layers, and what acts on each channel alone (batch norm,
            depthwise convolutions). A convolution in parts (`groups` of several channels) is cut part by
            part: a channel is a part, with the channels that enter it and those that leave it. So is a group
            norm, where a channel is what is normalised together.
        consumers: Input axes of the convolutions and linear layers that the channels enter.
    """

    name: str
    n_channels: int
    producers: tuple[Slot, ...]
    consumers: tuple[Slot, ...]

    @property
    def channels_per_part(self) -> int:
        """How many of its first layer's channels go as one: above 1 where a channel is a part of several."""
        for slot in self.producers:
            if slot.module == self.name:
                return max(1, sum(channel >= 0 for channel in slot.channel_of) // self.n_channels)
        return 1


@dataclass(frozen=True)
class Grouping:
    """The channel groups of a network, in forward order: plain data without any reference to the network.

    Attributes:
        groups: Groups that surgery cuts rightly.
        refused: For each group that cannot be cut, its name and the reason in one line.
    """

    groups: tuple[ChannelGroup, ...]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups in forward order."""
        return tuple(group.name for group in self.groups)

    @property
    def n_channels(self) -> dict[str, int]:
        """Channels of each uncut group, in forward order."""
        return {group.name: group.n_channels for group in self.groups}

    @property
    def channels_per_part(self) -> dict[str, int]:
        """How many of its first layer's channels one channel of each group stands for, in forward order."""
        return {group.name: group.channels_per_part for group in self.groups}

    def check_any(self) -> None:
        """Check that there is something to cut.

        Raises:
            ConfigurationError: If there is no group; gives the reasons against the first that there might be.
        """
        if self.groups:
            return
        reasons = [f"{name}: {reason}" for name, reason in self.refused.items()]
        shown = "; ".join(reasons[:N_REASONS]) or "only its output"
        more = (
            f"; and {len(reasons) - N_REASONS} more, see dirprune doctor" if len(reasons) > N_REASONS else ""
        )
        raise ConfigurationError(
            f"expected a network with channel groups that can be cut, got none ({shown}{more})"
        )

    def __getitem__(self, name: str) -> ChannelGroup:
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(f"no channel group {name!r}{suggest(name, self.names)}")

    def checked_kept(self, kept: Mapping[str, Sequence[int] | Tensor]) -> dict[str, list[int]]:
        """Return kept channels as sorted lists of plain integers.

        Args:
            kept: Indices of the kept channels, for some or all groups.
        Raises:
            ArchitectureError: If a group is unknown or its indices are not distinct channels, at least one.
        """
        n_channels = self.n_channels
        result = {}
        for name, indices in kept.items():
            if name not in n_channels:
                raise ArchitectureError(f"unknown channel group {name!r}{suggest(name, n_channels)}")
            ordered = sorted(int(index) for index in indices)
            is_within = ordered and ordered[0] >= 0 and ordered[-1] < n_channels[name]
            if not is_within or len(set(ordered)) < len(ordered):
                raise ArchitectureError(
                    f"expected distinct channels of {name!r} between 0 and {n_channels[name] - 1}, "
                    f"at least one, got {ordered[:10]}"
                )
            result[name] = ordered
        return result

    def fingerprint(self) -> str:
        """Return a hash of all groups and their slots; refusals do not enter."""
        return digest(
            [
                [group.name, group.n_channels]
                + [
                    [[slot.module, list(slot.channel_of)] for slot in slots]
                    for slots in (group.producers, group.consumers)
                ]
                for group in self.groups
            ]
        )


def narrow(grouping: Grouping, kept: Mapping[str, Sequence[int] | Tensor]) -> Grouping:
    """Return the groups of the network that is left when all but the kept channels are removed.

    Args:
        grouping: The network's channel groups.
        kept: Indices of the kept channels; groups that are not named stay whole.
    Raises:
        ArchitectureError: If a group is unknown or its indices are not distinct channels, at least one.
    """
    whole = {name: list(range(n_channels)) for name, n_channels in grouping.n_channels.items()}
    places = {
        name: {old: new for new, old in enumerate(channels)}
        for name, channels in grouping.checked_kept({**whole, **kept}).items()
    }
    gone: dict[tuple[str, bool], set[int]] = {}  # positions on each axis, which groups may share
    for group in grouping.groups:
        for slots, is_output in ((group.producers, True), (group.consumers, False)):
            for slot in slots:
                gone.setdefault((slot.module, is_output), set()).update(
                    position
                    for position, channel in enumerate(slot.channel_of)
                    if channel >= 0 and channel not in places[group.name]
                )

    def narrow_slot(slot: Slot, is_output: bool, place: Mapping[int, int]) -> Slot:
        removed = gone[slot.module, is_output]
        staying = (c for position, c in enumerate(slot.channel_of) if position not in removed)
        return Slot(slot.module, tuple(place.get(channel, -1) for channel in staying))

    groups = [
        ChannelGroup(
            group.name,
            len(places[group.name]),
            tuple(narrow_slot(slot, True, places[group.name]) for slot in group.producers),
            tuple(narrow_slot(slot, False, places[group.name]) for slot in group.consumers),
        )
        for group in grouping.groups
    ]
    return Grouping(tuple(groups), grouping.refused)

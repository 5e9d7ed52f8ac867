"""Examples of one role in memory, and what a role's examples offer wherever they lie."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dirprune.data.views import RandomCrops, cut
from dirprune.identity import digest

N_NUMBERS_LOOKED_AT = 16
"""Numbers of each input that `Split.identify` takes."""


def describe_tensor(tensor: Tensor) -> str:
    """Return the shape and type of a tensor, as in `(50, 1, 28, 28) uint8`."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class Batch:
    """Some examples of a split, on its device.

    Attributes:
        inputs: As they are stored, shape (n, ...); n may be 0.
        targets: Shape (n, ...).
        places: Which examples of the split these are, shape (n,), int64: those asked for, in their order,
            without images that cannot be read.
    """

    inputs: Tensor
    targets: Tensor
    places: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Examples in memory, and where each one comes from.

    What training and evaluation use of it, `dirprune.data.streaming.StreamedSplit` offers as well.

    Attributes:
        inputs: Shape (n, ...), uint8 (images, 0..255) or float32.
        targets: Shape (n, ...).
        indices: Places of the examples in their source, shape (n,), int64.
        source: The set that `indices` count in: "train" or "test".
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    source: str

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        """Return sizes and types in one line: the examples themselves would fill pages."""
        inputs, targets = (describe_tensor(tensor) for tensor in (self.inputs, self.targets))
        place = "" if self.inputs.device.type == "cpu" else f", on {self.inputs.device}"
        return f"Split({len(self)} of {self.source!r}, inputs {inputs}, targets {targets}{place})"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.inputs.shape[1:])

    @property
    def whereabouts(self) -> str:
        """Where the examples lie, for the user."""
        return f"in memory ({self.inputs.nbytes / 2**20:,.1f} MiB)"

    def to(self, device: torch.device | str) -> Split:
        """Return the same split with its tensors on a device."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            targets=self.targets.to(device),
            indices=self.indices.to(device),
        )

    def subset(self, positions: Tensor) -> Split:
        """Return the examples at the given places of this split, shape (m,), int64, in that order."""
        positions = positions.to(self.inputs.device)
        return replace(
            self,
            inputs=self.inputs[positions],
            targets=self.targets[positions],
            indices=self.indices[positions],
        )

    def in_memory(self) -> Split:
        """Return the split itself."""
        return self

    def batches(
        self, plan: Sequence[Tensor], crops: RandomCrops | None = None
    ) -> Generator[Batch, None, None]:
        """Yield examples batch by batch.

        Args:
            plan: Places in this split of each batch, shape (n,), int64.
            crops: Which parts of the images are to be seen, resized; None: the images whole.
        """
        if not plan:
            return
        sizes = [len(places) for places in plan]
        order = torch.cat(list(plan)).to(self.inputs.device)
        parts = None if crops is None else crops.place(self.inputs, self.indices[order]).split(sizes)
        for number, places in enumerate(order.split(sizes)):
            inputs = self.inputs[places]
            if parts is not None:
                inputs = cut(inputs, parts[number])
            yield Batch(inputs, self.targets[places], places)

    def identify(self) -> str:
        """Return a hash by which the same examples in the same order are known again, at little cost."""
        numbers = self.inputs.reshape(len(self), -1)
        some = numbers[:, :: max(1, numbers.shape[1] // N_NUMBERS_LOOKED_AT)]
        return digest(*(tensor.cpu().numpy() for tensor in (self.targets, some)))

    def fingerprint(self) -> str:
        """Return a hash of the content and the indices, the same on every device."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        arrays = [tensor.cpu().numpy() for tensor in (self.inputs, self.targets, self.indices)]
        return digest(self.source, *arrays)

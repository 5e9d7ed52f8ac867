"""Where a training stands, as a file from which it goes on bit for bit."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from dirprune.errors import StudyError, one_line
from dirprune.files import write_atomically

SCHEMA = 2
CHECKPOINT_S = 300.0
"""Seconds of training after which it is kept, also between reports."""


class Interval:
    """Whether so many seconds have passed since it was started last."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.restart()

    def restart(self) -> None:
        """Begin again."""
        self._began = time.monotonic()

    def is_over(self) -> bool:
        """Whether the seconds have passed."""
        return time.monotonic() - self._began >= self.seconds


@dataclass
class Segment:
    """What is trained between two reports, and how far that is.

    Attributes:
        start: Training images seen at its beginning.
        stop: The same at its end; in the same epoch.
        step: Steps taken.
        summed: Loss summed over the images of these steps.
        seconds: Time that they took.
        randomness: States of the generators after them, by name; empty at the beginning.
        peers: The same of each worker beside this one, where several train together.
    """

    start: int
    stop: int
    step: int = 0
    summed: float = 0.0
    seconds: float = 0.0
    randomness: dict[str, torch.Tensor] = field(default_factory=dict)
    peers: list[dict[str, torch.Tensor]] = field(default_factory=list)

    def for_peers(self, n_peers: int) -> list[Segment]:
        """Return what each of the workers beside this one trains: the same, with its own randomness."""
        known = [*self.peers, *[{}] * n_peers][:n_peers]
        return [Segment(self.start, self.stop, self.step, randomness=one) for one in known]

    @contextmanager
    def drawing(self, seed: int, augmentation_seed: int, device: torch.device) -> Iterator[torch.Generator]:
        """Give dropout and its like this segment's randomness for a while, and yield the augmentation's.

        The global generators are as before afterwards; the segment's go on from where they were.

        Args:
            seed: Of the global generators at the beginning.
            augmentation_seed: Of the augmentation's generator at the beginning.
            device: Where the network computes.
        """
        is_cuda = device.type == "cuda"
        generator = torch.Generator().manual_seed(augmentation_seed)
        with torch.random.fork_rng([device] if is_cuda else []):
            torch.default_generator.manual_seed(seed)
            if is_cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            if self.randomness:
                generator.set_state(self.randomness["augmentation"])
                torch.default_generator.set_state(self.randomness["cpu"])
                if is_cuda and "cuda" in self.randomness:
                    torch.cuda.set_rng_state(self.randomness["cuda"], device)
            yield generator
            self.randomness = {
                "augmentation": generator.get_state(),
                "cpu": torch.default_generator.get_state(),
                **({"cuda": torch.cuda.get_rng_state(device)} if is_cuda else {}),
            }


@dataclass
class TrainingState:
    """Where a training stands: plain data and tensors on the CPU.

    Args:
        images: Training images seen.
        model: The network's state dict.
        optimizer: The optimizer's state dict.
        best: With patience: `value` of the monitor, the `model` and `metrics` that had it, and `n_worse`, the
            evaluations since; otherwise empty.
        metrics: Of the last report.
        is_last: Whether the training had ended.
        segment: Between two reports the fields of the `Segment` that is under way; at a report empty.
    """

    images: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    best: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    is_last: bool = False
    segment: dict[str, Any] = field(default_factory=dict)

    @property
    def reported_images(self) -> int:
        """Training images seen at the last report."""
        return int(self.segment["start"]) if self.segment else self.images

    def save(self, path: Path) -> None:
        """Write the state; the file has its name only when it is whole."""
        content = io.BytesIO()  # torch's own writer does not say that a disk is full
        torch.save({"schema": SCHEMA, **vars(self)}, content)
        with write_atomically(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())

    @classmethod
    def load(cls, path: Path, origin: str | None = None) -> TrainingState:
        """Read a state written by `save`; no code in the file can run.

        Args:
            path: The file.
            origin: Of what the file is a copy, which errors then name in its place.

        Raises:
            StudyError: If the file is missing, broken or of another schema.
        """
        named = origin or path
        try:
            payload = torch.load(path, map_location="cpu", weights_only=True)
            schema = payload.pop("schema")
        except Exception as error:  # torch.load raises half a dozen unrelated types for a broken file
            reason = one_line(error)
            raise StudyError(
                f"expected a training state at {named}, but it cannot be read: {reason}"
            ) from error
        if schema != SCHEMA:
            raise StudyError(f"expected a training state of schema {SCHEMA} at {named}, got schema {schema}")
        return cls(**payload)


def describe_segment(segment: Segment | None) -> dict[str, Any]:
    """Return a segment as a state holds it: plain data and tensors of its own."""
    return {} if segment is None else asdict(segment)


def to_cpu(state: Any) -> Any:
    """Copy a state dict, nested as it may be, with every tensor on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(to_cpu(value) for value in state)
    return state

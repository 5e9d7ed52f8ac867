"""Images that stay where they are stored and are decoded by worker processes shortly before they are wanted.

torch's `DataLoader` runs the workers. A sample of it is a whole batch, planned by the caller: which images a
batch holds follows from the plan alone, whatever the number of workers, and a training goes on in the middle
of an epoch by planning the rest of it.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dirprune.data.images import (
    BROKEN,
    MAX_BROKEN,
    count_bearable,
    decode,
    decode_crop,
    describe_broken,
    refuse_broken,
)
from dirprune.data.index import ImageIndex
from dirprune.data.split import Batch, Split
from dirprune.data.views import RandomCrops
from dirprune.errors import DataError, one_line
from dirprune.identity import digest

logger = logging.getLogger("dirprune.data")

MAX_WORKERS = 16
N_AHEAD = 2
"""Batches that each worker prepares before they are asked for."""
SHARED_MEMORY = Path("/dev/shm")
BATCH_IN_MEMORY = 256
LEAST_JUDGED = 1000
"""Images of which the share that cannot be read is judged, where fewer of a larger split are asked for."""
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class StreamedSplit:
    """Images in a store, and where each one comes from; offers what `dirprune.data.split.Split` does.

    Attributes:
        index: Where the images of the source lie.
        targets: Places of the classes, shape (n,), int64.
        indices: Places of the images in the index, shape (n,), int64.
        source: The set that `indices` count in: "train" or "test".
        size: Pixels of each side of an image.
        device: Where batches are put.
        n_workers: Processes that read and decode; None: as many as torch has threads here, up to
            `MAX_WORKERS`; 0: this process does.
        shorter: Pixels to which the shorter side is resized before the middle is cut out; None: to `size`.
    """

    index: ImageIndex
    targets: Tensor
    indices: Tensor
    source: str
    size: int
    device: torch.device = CPU
    n_workers: int | None = None
    shorter: int | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        """Return sizes in one line: places and labels of all images would fill pages."""
        shape = (len(self), *self.input_shape)
        return f"StreamedSplit({len(self)} of {self.source!r}, inputs {shape}, {self.whereabouts})"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (3, self.size, self.size)

    @property
    def whereabouts(self) -> str:
        """Where the examples lie, for the user."""
        kind = f"{len(self.index.files):,} tar shards" if self.index.is_sharded else "class folders"
        return f"streamed from {kind}"

    def to(self, device: torch.device | str) -> StreamedSplit:
        """Return the same split with its batches on a device."""
        return replace(self, device=torch.device(device))

    def subset(self, positions: Tensor) -> StreamedSplit:
        """Return the examples at the given places of this split, shape (m,), int64, in that order."""
        return replace(self, targets=self.targets[positions], indices=self.indices[positions])

    def in_memory(self) -> Split:
        """Return the images that can be read, decoded, in memory.

        Raises:
            DataError: As `batches`.
        """
        inputs = torch.empty(len(self), *self.input_shape, dtype=torch.uint8)
        places: list[Tensor] = []
        n = 0
        for batch in replace(self, device=CPU).batches(torch.arange(len(self)).split(BATCH_IN_MEMORY)):
            inputs[n : n + len(batch.places)] = batch.inputs
            n += len(batch.places)
            places.append(batch.places)
        read = torch.cat(places)
        return Split(inputs[:n], self.targets[read], self.indices[read], self.source).to(self.device)

    def batches(
        self, plan: Sequence[Tensor], crops: RandomCrops | None = None
    ) -> Generator[Batch, None, None]:
        """Yield examples batch by batch, while workers prepare the next ones; they end with the iterator.

        Args:
            plan: Places in this split of each batch, shape (n,), int64.
            crops: Which parts of the images are to be seen; None: their middle.
        Raises:
            DataError: If the store does not answer, a worker was killed, or of the images asked for more
                than one, and more than 1% (of a part of this split a little more, by chance), cannot be read,
                or the only one.
        """
        broken: dict[int, str] = {}
        n_planned = sum(map(len, plan))
        images = _Batches(self, crops)
        plan = [places.cpu() for places in plan]
        for inputs, places, failures in _load(images, plan, self._count_workers(plan), self.device):
            for position, reason in failures:
                self._note_broken_(position, reason, broken, n_planned)
            targets = self.targets[places].to(self.device)
            yield Batch(inputs.to(self.device, non_blocking=True), targets, places)

    def _count_workers(self, plan: Sequence[Tensor]) -> int:
        """Return how many workers serve a plan: no more than batches, nor than shared memory has room for."""
        wanted = min(torch.get_num_threads(), MAX_WORKERS) if self.n_workers is None else self.n_workers
        wanted = min(wanted, len(plan))
        if wanted and SHARED_MEMORY.is_dir():
            bytes_ahead = N_AHEAD * max(map(len, plan)) * 3 * self.size**2
            wanted = min(wanted, shutil.disk_usage(SHARED_MEMORY).free // (2 * bytes_ahead))
        return wanted

    def _count_bearable(self, n_planned: int) -> float:
        """Return how many of some images of this split may be unreadable.

        A part may have more than its share by chance: three standard deviations. Few images tell nothing.
        """
        n_judged = max(n_planned, LEAST_JUDGED)
        expected = MAX_BROKEN * n_judged
        return min(expected + 3 * math.sqrt(expected), count_bearable(len(self)))

    def _note_broken_(self, position: int, reason: str, broken: dict[int, str], n_planned: int) -> None:
        place = int(self.indices[position])
        broken[place] = reason
        if len(broken) > self._count_bearable(n_planned) or len(broken) == len(self):
            raise refuse_broken(list(broken.values()), n_planned)
        if place not in self.index.broken:
            self.index.broken[place] = reason
            logger.warning("image left out: %s", reason)

    def identify(self) -> str:
        """Return a hash by which the same images in the same order are known again, wherever they lie."""
        return digest(self.targets.cpu().numpy(), self.index.sizes[self.indices.cpu().numpy()])

    def fingerprint(self) -> str:
        """Return a hash of names, sizes, labels and indices, the same on every device, wherever they lie."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        arrays = [tensor.cpu().numpy() for tensor in (self.targets, self.indices)]
        size = self.size if self.shorter is None else [self.size, self.shorter]
        return digest(self.source, self.index.fingerprint, size, *arrays)


Failures = list[tuple[int, str]]  # position in the split, and what is wrong with the image there
Loaded = tuple[Tensor, Tensor, Failures]  # images, their positions, and those left out


class _Batches(Dataset):
    """Batches by the positions of their images; what a worker process holds."""

    def __init__(self, split: StreamedSplit, crops: RandomCrops | None) -> None:
        self.index, self.indices, self.crops = split.index, split.indices.numpy(), crops
        self.size, self.shorter = split.size, split.shorter

    def __getitem__(self, positions: Tensor) -> Loaded | str:
        """Return a batch, or what went wrong: of an error torch would make a traceback of many lines."""
        try:
            return self.load(positions)
        except DataError as error:
            return str(error)

    def load(self, positions: Tensor) -> Loaded:
        """Read and decode the images at the given places of the split."""
        places = self.indices[positions.numpy()]
        inputs = torch.empty(len(places), 3, self.size, self.size, dtype=torch.uint8)
        failures: Failures = []
        read: list[int] = []
        files = self.index.read(places)
        for position, place, file in zip(positions.tolist(), places.tolist(), files, strict=True):
            try:
                image = self._decode(file, place)
            except BROKEN as error:
                # Without the file's address in memory, which differs from process to process.
                failures.append((position, describe_broken(self.index.describe(place), error, file)))
                continue
            inputs[len(read)] = torch.from_numpy(image)
            read.append(position)
        return inputs[: len(read)], torch.tensor(read, dtype=torch.int64), failures

    def _decode(self, file: BinaryIO | OSError, place: int) -> np.ndarray:
        if isinstance(file, OSError):
            raise file
        if self.crops is None:
            return decode(file, self.size, self.shorter)
        return decode_crop(file, self.size, self.crops, place)


def _load(
    batches: _Batches, plan: Sequence[Tensor], n_workers: int, device: torch.device
) -> Iterator[Loaded]:
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=plan,
        num_workers=n_workers,
        collate_fn=_keep,
        prefetch_factor=N_AHEAD if n_workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the global one must stay as it is
    )
    answers = iter(loader)
    while True:
        try:
            answer = next(answers)
        except StopIteration:
            return
        except RuntimeError as error:  # torch says so of a worker that was killed
            raise DataError(f"a process that reads images ended: {one_line(error)}") from error
        if isinstance(answer, str):
            raise DataError(answer)
        yield answer


def _keep(answer: object) -> object:
    return answer


def _start_worker(number: int) -> None:
    """Let a worker end when it is told to: what hears signals belongs to the process it was copied from."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

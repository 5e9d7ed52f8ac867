"""How fast are training batches made, beside a plain DataLoader with torchvision's PIL transforms?

    python benchmarks/loading.py --cifar DIR --photographs DIR [--repetitions 5] [--workers 0,1,2]
    python benchmarks/loading.py --photographs DIR --memory

DIR holds class folders. Ours and the plain one take turns; both end in normalised float32 batches.
CIFAR-10 lies in memory on both sides (crop with a border of 4, mirroring, normalising); photographs of
112 pixels are decoded from files and from tar shards (random resized crop, mirroring, normalising). The
plain reader of shards is an `IterableDataset` over `tarfile`, shards dealt out to the workers. Images/s
are by the clock; CPU time counts all processes, and tells more where other work shares the cores.
`--memory` streams the same images from indices of 1, 10 and 100 times the size, and says what the
process and its workers hold.
"""

from __future__ import annotations

import io
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, get_worker_info
from torchvision import transforms
from torchvision.datasets import ImageFolder

from dirprune.augmentation import Augmentation, Draws, augment
from dirprune.cli.printing import format_table
from dirprune.data import DataRoles, load_data
from dirprune.data.streaming import StreamedSplit
from dirprune.data.views import RandomCrops

BATCH = 128
SIZE = 112
MIN_AREA = 0.35
N_SHARD = 1000
N_PASS = {"cifar": 12_800, "photographs": 2_560}
FACTORS = (1, 10, 100)

Pass = Callable[[], Iterator[Tensor]]


def ours(
    roles: DataRoles, n: int, augmentation: Augmentation, crops: RandomCrops | None, workers: int
) -> Pass:
    """Return a pass over n training images as `dirprune.training` makes its batches."""
    train = roles.train
    if isinstance(train, StreamedSplit):
        train = replace(train, n_workers=workers)

    def run() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(train), generator=generator)[:n]
        for batch in train.batches(order.split(BATCH), crops):
            yield roles.normalise(augment(batch.inputs, augmentation, Draws(generator, len(batch.places))))

    return run


def plain(dataset: Dataset, n: int, workers: int) -> Pass:
    """Return a pass over n images by a DataLoader as most scripts have it."""
    if isinstance(dataset, IterableDataset):
        return lambda: _first(DataLoader(dataset, BATCH, num_workers=workers), n)

    def run() -> Iterator[Tensor]:
        order = torch.randperm(len(dataset))[:n].tolist()  # type: ignore[arg-type]
        for images, _ in DataLoader(Subset(dataset, order), BATCH, num_workers=workers):
            yield images

    return run


def _first(loader: DataLoader, n: int) -> Iterator[Tensor]:
    for number, (images, _) in enumerate(loader):
        if number * BATCH >= n:
            return
        yield images


class InMemory(Dataset):
    """Images as torchvision's CIFAR10 holds them: one array, a PIL image of each when it is asked for."""

    def __init__(self, images: Tensor, transform: Any) -> None:
        self.images, self.transform = images.permute(0, 2, 3, 1).contiguous().numpy(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[place])), 0


class Shards(IterableDataset):
    """Images of tar shards, one after the other."""

    def __init__(self, paths: list[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        for path in self.paths if info is None else self.paths[info.id :: info.num_workers]:
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.name.endswith(".jpg"):
                        file = archive.extractfile(member)
                        assert file is not None
                        yield self.transform(Image.open(file).convert("RGB")), 0


def write_shards(photographs: Path, root: Path) -> None:
    """Pack class folders into shards in a random order, labels beside them."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        (root / part).mkdir(parents=True)
        folders = sorted((photographs / part).iterdir())
        images = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]
        order = rng.permutation(len(images))
        for number, chosen in enumerate(np.array_split(order, -(-len(images) // N_SHARD))):
            with tarfile.open(root / part / f"shard-{number:06}.tar", "w") as archive:
                for place in chosen:
                    path, label = images[place]
                    for suffix, content in ((".jpg", path.read_bytes()), (".cls", str(label).encode())):
                        info = tarfile.TarInfo(f"{path.parent.name}_{path.stem.replace('.', '_')}{suffix}")
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))


def measure(run: Pass) -> tuple[float, float, int]:
    """Return seconds by the clock, CPU seconds of this process and its workers, and images of a pass."""
    cpu, began = _cpu_s(), time.perf_counter()
    n = sum(len(batch) for batch in run())
    return time.perf_counter() - began, _cpu_s() - cpu, n


def _cpu_s() -> float:
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def compare(name: str, mine: Pass, other: Pass, repetitions: int) -> list[str]:
    """Measure both in turns and return a row: images/s of each, and the ratios with their range."""
    for run in (mine, other):
        next(run())  # the first batch: files into the system's cache
    rates: list[tuple[float, float]] = []
    ratios: list[float] = []
    cpu_ratios: list[float] = []
    for _ in range(repetitions):
        (own_s, own_cpu, n), (other_s, other_cpu, m) = measure(mine), measure(other)
        rates.append((n / own_s, m / other_s))
        ratios.append(n / own_s * other_s / m)
        cpu_ratios.append(n / own_cpu * other_cpu / m)
    medians = [f"{statistics.median(side):,.0f}" for side in zip(*rates, strict=True)]
    return [name, *medians, *(_spread(values) for values in (ratios, cpu_ratios))]


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def cases(
    cifar: Path | None, photographs: Path | None, shards: Path, workers: list[int], share: float
) -> Iterator[tuple[str, Pass, Pass]]:
    """Yield what is compared: a name, our pass and the plain one."""
    if cifar is not None:
        roles, n = load_data("cifar10", cifar), round(N_PASS["cifar"] * share)
        crop = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        own = ours(roles, n, Augmentation(shift=4, flips=True), None, 0)
        images = InMemory(roles.train.in_memory().inputs, _finish(crop, roles))
        for count in workers:
            yield f"CIFAR-10 in memory, plain with {count} workers", own, plain(images, n, count)
    if photographs is not None:
        write_shards(photographs, shards)
        n = round(N_PASS["photographs"] * share)
        for kind, root in (("folders", photographs), ("shards", shards)):
            roles = load_data(f"stream:{SIZE}", root, validation_from="test:0.5")
            resized = transforms.RandomResizedCrop(SIZE, (MIN_AREA, 1.0))
            finish = _finish([resized, transforms.RandomHorizontalFlip()], roles)
            other: Dataset = (
                ImageFolder(str(photographs / "train"), finish)
                if kind == "folders"
                else Shards(sorted((shards / "train").iterdir()), finish)
            )
            for count in workers:
                own = ours(roles, n, Augmentation(flips=True), RandomCrops(MIN_AREA, 0), count)
                yield f"photographs from {kind}, {count} workers", own, plain(other, n, count)


def _finish(first: list[Any], roles: DataRoles) -> transforms.Compose:
    return transforms.Compose([*first, transforms.ToTensor(), transforms.Normalize(roles.mean, roles.std)])


def measure_memory(photographs: Path, factor: int) -> None:
    """Stream a pass from an index that names every image `factor` times; print what is held at its end."""
    train = load_data(f"stream:{SIZE}", photographs, validation_from="test:0.5").train
    assert isinstance(train, StreamedSplit)
    index = train.index
    index = replace(
        index,
        file_of=np.tile(index.file_of, factor),
        starts=np.tile(index.starts, factor),
        sizes=np.tile(index.sizes, factor),
        labels=np.tile(index.labels, factor),
    )
    n = len(index)
    train = replace(
        train, index=index, targets=torch.from_numpy(index.labels), indices=torch.arange(n), n_workers=2
    )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: N_PASS["photographs"] * 2]
    held = 0.0
    for _ in train.batches(order.split(BATCH)):
        held = max(held, _held_mib())
    n_bytes = sum(
        array.nbytes
        for array in (index.file_of, index.starts, index.sizes, index.labels, train.indices.numpy())
    )
    click.echo(f"{n:,}\t{n_bytes / 2**20:.1f}\t{held:.0f}")


def _held_mib() -> float:
    """Return the memory of this process and its children, what they share counted once."""
    me = Path("/proc/self/task")
    children = [int(text) for task in me.iterdir() for text in (task / "children").read_text().split()]
    total = 0
    for process in ("self", *children):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


@click.command
@click.option("--cifar", type=Path, help="Class folders of CIFAR-10.")
@click.option("--photographs", type=Path, help="Class folders of photographs: train and val.")
@click.option("--repetitions", default=5, show_default=True)
@click.option("--workers", default="0,1,2", show_default=True)
@click.option("--share", default=1.0, show_default=True, help="Of the images of a pass.")
@click.option("--memory", is_flag=True, help="Measure memory instead.")
@click.option("--factor", type=int, hidden=True)
def main(
    cifar: Path | None,
    photographs: Path | None,
    repetitions: int,
    workers: str,
    share: float,
    memory: bool,
    factor: int | None,
) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    if factor is not None:
        assert photographs is not None
        measure_memory(photographs, factor)
        return
    if memory:
        rows = []
        for one in FACTORS:
            command = [sys.executable, __file__, "--photographs", str(photographs), "--factor", str(one)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(said.strip().splitlines()[-1].split("\t"))
        click.echo(format_table(["images", "index, MiB", "held with 2 workers, MiB"], rows))
        return
    counts = [int(count) for count in workers.split(",")]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, mine, other in cases(cifar, photographs, Path(folder), counts, share):
            rows.append(compare(name, mine, other, repetitions))
            click.echo("  ".join(rows[-1]), err=True)
    head = ["", "ours, images/s", "plain, images/s", "ratio", "ratio by CPU time"]
    click.echo(format_table(head, rows))


if __name__ == "__main__":
    main()

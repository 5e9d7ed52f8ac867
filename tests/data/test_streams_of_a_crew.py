"""Workers that train one network on streamed images: each decodes its own part of every batch, once."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from dirprune.data import load_data, streaming
from dirprune.data.roles import DataRoles
from dirprune.data.streaming import _Batches
from dirprune.parallel import LOOPBACK, Share, join
from dirprune.peer import Peer
from dirprune.recipe import Recipe
from dirprune.tasks import make_task
from dirprune.training_run import TrainingRun
from dirprune.training_state import Segment
from tests.data.photograph_folders import write_folders

SIZE = 16
N_IMAGES = 36
RECIPE = Recipe(
    images=2 * N_IMAGES, batch_size=10, optimizer="sgd", lr=0.05, shift=2, flips=True, min_area=0.5
)


class Counted(_Batches):
    """Batches that remember which images they decoded."""

    decoded: ClassVar[list[int]] = []

    def _decode(self, file: Any, place: int) -> Any:
        Counted.decoded.append(place)
        return super()._decode(file, place)


def make_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 3),
        )


def train(
    root: Path,
    recipe: Recipe,
    share: Share,
    n_parts: int = 1,
    port: int = 0,
    listener: socket.socket | None = None,
) -> tuple[dict[str, Tensor], list[int]]:
    """Train for two passes as one of some workers; return the weights and the images that were decoded.

    In the second pass each batch is computed in `n_parts`, as it is once memory has run out.
    """
    torch.set_num_threads(1)
    streaming._Batches = Counted
    roles = load_data(f"stream:{SIZE}", root, validation_from="test:0.5")
    roles = replace(roles, train=replace(roles.train, n_workers=0))  # decoded where it is counted
    network = make_network()
    run = TrainingRun(network, roles, make_task(), recipe, 0, torch.device("cpu"), None)
    with ExitStack() as together:
        if share.n_workers > 1:
            join(share, LOOPBACK, port, "cpu", listener)
            run.spread_out_(share, together)
        Counted.decoded.clear()
        for start in range(0, recipe.images, N_IMAGES):
            run.n_parts = n_parts if start else 1
            run.take_steps_(Segment(start, start + N_IMAGES), lambda: False)
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}, list(Counted.decoded)


def train_and_put(answers: Any, *arguments: Any) -> None:
    weights, decoded = train(*arguments)
    answers.put(({name: tensor.numpy() for name, tensor in weights.items()}, decoded))


def train_together(root: Path, recipe: Recipe, n_parts: int = 1) -> list[tuple[dict[str, Tensor], list[int]]]:
    """Train in this process and another, in one process group."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    other = spawn.Process(target=train_and_put, args=(answers, root, recipe, Share(1, 2), n_parts, port))
    other.start()
    try:
        own = train(root, recipe, Share(0, 2), n_parts, port, listener)
        weights, decoded = answers.get(timeout=120)
        return [own, ({name: torch.from_numpy(array) for name, array in weights.items()}, decoded)]
    finally:
        torch.distributed.destroy_process_group()
        other.join(timeout=60)
        other.kill()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_worker_decodes_its_own_part_and_the_result_is_that_of_one(tmp_path: Path) -> None:
    write_folders(tmp_path)
    alone, decoded_alone = train(tmp_path, RECIPE, Share())
    together = train_together(tmp_path, RECIPE)
    for weights, _ in together:
        for name, tensor in weights.items():
            torch.testing.assert_close(tensor, alone[name], rtol=1e-3, atol=1e-5)
    decoded = [Counter(places) for _, places in together]
    assert sum(decoded, Counter()) == Counter(decoded_alone)
    assert [places.total() for places in decoded] == [32, 40]  # 4 and 5 of the 9 images of each step


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_worker_whose_part_cannot_be_read_or_halved_keeps_up_with_the_others(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "train/bee/005.jpg").write_bytes(b"no image")
    together = train_together(tmp_path, replace(RECIPE, batch_size=3), n_parts=2)  # parts of 1 and 2 images
    (weights, _), (others, _) = together
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


def test_images_that_others_left_out_are_known_to_the_one_that_leads(tmp_path: Path) -> None:
    write_folders(tmp_path)
    roles = load_data(f"stream:{SIZE}", tmp_path, validation_from="test:0.5")
    roles = replace(roles, train=replace(roles.train, n_workers=0))
    run = TrainingRun(make_network(), roles, make_task(), RECIPE, 0, torch.device("cpu"), None)
    (tmp_path / "train/bee/005.jpg").write_bytes(b"no image")
    peer = Peer(
        Share(), load_data(f"stream:{SIZE}", tmp_path, validation_from="test:0.5"), make_task(), "cpu"
    )
    peer.run = TrainingRun(make_network(), peer.roles, make_task(), RECIPE, 0, torch.device("cpu"), None)
    part = peer.advance(Segment(0, N_IMAGES), 4)
    assert [reason.partition(": ")[0] for reason in part.unreadable.values()] == [
        str(tmp_path / "train/bee/005.jpg")
    ]
    (tmp_path / "train/bee/005.jpg").write_bytes((tmp_path / "train/bee/003.jpg").read_bytes())
    assert roles.unreadable == []
    run.crew = SimpleNamespace(n_workers=2, advance=lambda segments, until: lambda: [part])
    run.advance_(Segment(0, N_IMAGES), lambda: False)
    assert roles.unreadable == list(part.unreadable.values())


class Noted(_Batches):
    """Batches that note in a file which process read them."""

    notes: ClassVar[Path]

    def load(self, positions: Tensor) -> Any:
        with Noted.notes.open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        return super().load(positions)


def train_in_calls(roles: DataRoles, segments: Sequence[Segment], n_steps: int | None) -> dict[str, Tensor]:
    """Train segments with so many steps in each call, as one that leads a crew asks for them."""
    network = make_network()
    run = TrainingRun(network, roles, make_task(), RECIPE, 0, torch.device("cpu"), None)
    for segment in segments:
        step, has_ended, randomness = 0, False, segment.randomness
        while not has_ended:
            part = replace(segment, step=step, randomness=randomness)
            has_ended = run.take_steps_(part, lambda: False, None if n_steps is None else step + n_steps)
            step, randomness = part.step, part.randomness
    assert not multiprocessing.active_children()
    return network.state_dict()


def test_a_process_that_reads_lives_as_long_as_the_epoch_however_often_the_training_looks_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path)
    epochs = [Segment(start, start + N_IMAGES) for start in range(0, 2 * N_IMAGES, N_IMAGES)]
    roles = load_data(f"stream:{SIZE}", tmp_path, validation_from="test:0.5")
    roles = replace(roles, train=replace(roles.train, n_workers=1))
    at_once = train_in_calls(roles, epochs, None)
    monkeypatch.setattr(streaming, "_Batches", Noted)
    monkeypatch.setattr(Noted, "notes", tmp_path / "notes", raising=False)
    in_calls = train_in_calls(roles, epochs, 1)
    readers = Noted.notes.read_text().split()
    assert len(readers) == 2 * 4  # as many as there are batches
    assert len(set(readers)) == len(epochs)
    for name, tensor in at_once.items():
        assert torch.equal(tensor, in_calls[name]), name

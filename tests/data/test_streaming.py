"""Streamed images are those in memory, whatever the layout, the place and the workers; so are trainings."""

from __future__ import annotations

import errno
import itertools
import logging
import multiprocessing
import os
import pickle
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dirprune.data import DataRoles, load_data, photographs, store, streaming
from dirprune.data.photographs import load_photographs
from dirprune.data.streaming import StreamedSplit
from dirprune.data.views import RandomCrops
from dirprune.errors import DataError
from dirprune.recipe import Recipe
from dirprune.tasks import make_task
from dirprune.training import TrainingState, train_
from tests.full_disk import no_room

from .photograph_folders import (
    label_by_json,
    label_by_name,
    label_by_number,
    write_folders,
    write_shard,
    write_shards,
)

SIZE = 24


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs") / "set"
    write_folders(root)
    return root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def shards(folders: Path, tmp_path: Path) -> Path:
    write_shards(tmp_path / "set", folders)
    return tmp_path / "set"


def pass_over(split: Any, n_workers: int = 0, crops: RandomCrops | None = None) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of one pass in batches of seven."""
    if isinstance(split, StreamedSplit):
        split = replace(split, n_workers=n_workers)
    batches = list(split.batches(torch.arange(len(split)).split(7), crops))
    return torch.cat([batch.inputs for batch in batches]), torch.cat([batch.targets for batch in batches])


def assert_same_roles(roles: DataRoles, expected: DataRoles) -> None:
    assert roles.identity == expected.identity != ""
    for name in ("train", "calibration", "validation", "test"):
        split, other = getattr(roles, name), getattr(expected, name)
        assert split.indices.tolist() == other.indices.tolist()
        assert split.source == other.source
        for tensor, same in zip(pass_over(split), pass_over(other), strict=True):
            assert torch.equal(tensor, same)


CUTS: list[dict[str, Any]] = [
    {"validation_from": "train:0.1", "seed": 3},
    {"validation_from": "test:0.5", "train_limit": 15},
]


@pytest.mark.parametrize("cut", CUTS)
def test_streamed_class_folders_hold_what_they_hold_in_memory(folders: Path, cut: dict[str, Any]) -> None:
    in_memory = load_data(f"folders:{SIZE}", folders, **cut)
    streamed = load_data(f"stream:{SIZE}", folders, **cut)
    assert isinstance(streamed.train, StreamedSplit)
    assert streamed.calibration.inputs.dtype == torch.uint8
    assert streamed.input_shape == (3, SIZE, SIZE)
    assert max(map(len, repr(streamed).splitlines())) < 120
    assert len(repr(streamed.train.index).replace(str(folders), "")) < 120
    assert torch.equal(streamed.example_input(), in_memory.example_input())
    assert_same_roles(streamed, in_memory)


@pytest.mark.parametrize("labels", [label_by_number, label_by_json, label_by_name])
def test_shards_hold_what_the_folders_hold(folders: Path, tmp_path: Path, labels: Any) -> None:
    write_shards(tmp_path / "shards", folders, labels=labels)
    expected = load_data(f"folders:{SIZE}", folders)
    assert_same_roles(load_data(f"stream:{SIZE}", tmp_path / "shards"), expected)
    assert_same_roles(load_data(f"folders:{SIZE}", tmp_path / "shards"), expected)


def test_without_room_for_their_index_shards_are_read_all_the_same(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shards(tmp_path / "shards", folders)
    index_shards = photographs.index_shards

    def index_without_room(*given: Any) -> Any:  # decoding takes semaphores, which are files
        with no_room():
            return index_shards(*given)

    monkeypatch.setattr(photographs, "index_shards", index_without_room)
    roles = load_data(f"stream:{SIZE}", tmp_path / "shards")
    assert not list((tmp_path / "cache").rglob("*safetensors*"))
    assert_same_roles(roles, load_data(f"folders:{SIZE}", folders))


def number_classes(root: Path, n_classes: int = 12) -> None:
    """Write class folders 0, 1, ... with two images each, whose red is ten times the number."""
    for part, number in itertools.product(("train", "val"), range(n_classes)):
        (root / part / str(number)).mkdir(parents=True)
        for place in range(2):
            image = Image.new("RGB", (SIZE, SIZE), (10 * number, 0, place))
            image.save(root / part / str(number) / f"{place}.png")


def test_numbers_of_classes_are_the_same_in_both_parts_where_one_is_sharded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    number_classes(tmp_path)
    for part in ("train", "val"):
        members = []
        for path in sorted((tmp_path / part).glob("*/*")):
            key = f"{path.parent.name}_{path.stem}"
            members += [(f"{key}.png", path.read_bytes()), (f"{key}.cls", path.parent.name.encode())]
        write_shard(tmp_path / "shards" / part / "0.tar", members)
    for sharded, other in (("train", "val"), ("val", "train")):
        root = tmp_path / f"{sharded} sharded"
        root.mkdir()
        (root / sharded).symlink_to(tmp_path / "shards" / sharded)
        (root / other).symlink_to(tmp_path / other)
        caplog.clear()
        roles = load_data(f"stream:{SIZE}", root, validation_from="train:0.5")
        assert ("as text, 0, 1, 10, 11, as" in caplog.text) is (sharded == "val")
        names = [int(name) for name in roles.train.index.classes]
        assert names == (list(range(12)) if sharded == "train" else sorted(range(12), key=str))
        for split in (roles.train, roles.validation, roles.test):
            inputs, targets = pass_over(split)
            assert (inputs[:, 0, 0, 0] // 10).tolist() == [names[target] for target in targets]


@pytest.mark.parametrize("prefix", ["set", "retrieval_testbed"])
def test_shards_of_both_parts_may_lie_in_one_folder(
    folders: Path, shards: Path, tmp_path: Path, prefix: str
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for part, name in (("train", "train"), ("val", "validation")):
        for path in (shards / part).iterdir():
            (flat / f"{prefix}-{name}-{path.name}").write_bytes(path.read_bytes())
    assert_same_roles(load_data(f"stream:{SIZE}", flat), load_data(f"folders:{SIZE}", folders))


def test_an_object_store_holds_what_the_folder_holds(folders: Path, shards: Path) -> None:
    expected = load_data(f"folders:{SIZE}", folders)
    for number, root in enumerate((folders, shards)):
        uri = f"memory://bucket/{root.parent.name}-{number}"
        fsspec.filesystem("memory").put(str(root), uri, recursive=True)
        roles = load_data(f"stream:{SIZE}", uri)
        assert_same_roles(roles, expected)
        assert torch.equal(pass_over(roles.train, 2)[0], pass_over(expected.train)[0])
        assert roles.name == f"{root.parent.name}-{number}-{SIZE}"
        assert_same_roles(load_data(f"folders:{SIZE}", uri), expected)


@pytest.mark.parametrize("crops", [None, RandomCrops(0.3, 5)])
def test_workers_neither_change_images_nor_their_order_nor_the_global_generator(
    shards: Path, crops: RandomCrops | None
) -> None:
    split = load_data(f"stream:{SIZE}", shards).train
    torch.manual_seed(0)
    before = torch.get_rng_state()
    expected = pass_over(split, 0, crops)
    for n_workers in (1, 2):
        assert torch.equal(pass_over(split, n_workers, crops)[0], expected[0])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(pass_over(pickle.loads(pickle.dumps(split)), 1, crops)[0], expected[0])


def test_seed_decides_which_parts_of_images_are_seen(folders: Path) -> None:
    split = load_data(f"stream:{SIZE}", folders).train
    first, again, other = (pass_over(split, 0, RandomCrops(0.3, seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first != other).flatten(1).any(1).all()


class Small(nn.Module):
    """A network with dropout: what it learns depends on every generator."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 5, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)
        )
        self.head = nn.Linear(4 * 25, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs))


RECIPE = Recipe(images=60, batch_size=5, flips=True, shift=1, min_area=0.4)


def train(roles: DataRoles, n_workers: int, path: Path | None = None, pause_at: int | None = None) -> Any:
    """Train, or go on; return the weights, or None at the pause, whose state is in the file."""
    roles = replace(roles, train=replace(roles.train, n_workers=n_workers))
    torch.manual_seed(0)
    network, steps = Small(), 0

    def wants_pause() -> bool:
        nonlocal steps
        steps += 1
        return steps == pause_at

    state = TrainingState.load(path) if path is not None and path.exists() else None
    for report in train_(
        network, roles, make_task(), RECIPE, seed=4, state=state, stops=[7], wants_pause=wants_pause
    ):
        if report.is_pause and path is not None:
            report.capture().save(path)
            return None
    return torch.cat([parameter.flatten() for parameter in network.state_dict().values()])


@pytest.mark.parametrize("pause_at", [1, 4, 9])
def test_training_goes_on_in_the_middle_of_an_epoch_bit_for_bit(
    folders: Path, tmp_path: Path, pause_at: int
) -> None:
    roles = load_data(f"stream:{SIZE}", folders)
    expected = train(roles, 0)
    path = tmp_path / "state.pt"
    assert train(roles, 2, path, pause_at) is None
    torch.rand(1)  # what happens meanwhile does not matter
    assert torch.equal(train(roles, 1, path), expected)


def test_training_on_streamed_images_is_that_on_images_in_memory(folders: Path) -> None:
    roles = [load_data(f"{kind}:{SIZE}", folders) for kind in ("folders", "stream")]
    recipe = replace(RECIPE, min_area=1.0)
    reports = []
    for one in roles:
        torch.manual_seed(0)
        reports.append([r.metrics["val_loss"] for r in train_(Small(), one, make_task(), recipe, seed=1)])
    assert reports[0] == reports[1]


def test_the_teacher_of_streamed_images_says_the_same(folders: Path) -> None:
    roles = [load_data(f"{kind}:{SIZE}", folders) for kind in ("folders", "stream")]
    recipe = Recipe(images=60, batch_size=5, distillation=0.5)
    losses = []
    for one in roles:
        torch.manual_seed(0)
        teacher, network = Small(), Small()
        *_, last = train_(network, one, make_task(), recipe, seed=1, teacher=teacher)
        losses.append(last.metrics["train_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("is_sharded", [False, True])
def test_few_broken_images_are_named_once_and_left_out(
    tmp_path: Path, is_sharded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "set"
    write_folders(root)
    broken = root / "train" / "bee" / "002.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    if is_sharded:
        write_shards(tmp_path / "shards", root)
        root = tmp_path / "shards"
    roles = load_data(f"stream:{SIZE}", root, validation_from="test:0.5")
    with caplog.at_level(logging.WARNING, "dirprune.data"):
        for _ in range(2):
            batches = list(replace(roles.train, n_workers=1).batches(torch.arange(36).split(9)))
    places = torch.cat([batch.places for batch in batches]).tolist()
    assert places == [place for place in range(36) if place != 14]
    assert [len(batch.inputs) for batch in batches] == [9, 8, 9, 9]
    named = [line for line in caplog.messages if "image left out" in line]
    assert len(named) == 1
    assert ("shard-000001.tar, bee_002.png: " if is_sharded else "train/bee/002.png: ") in named[0]
    *_, last = train_(Small(), roles, make_task(), RECIPE, seed=0)
    assert last.images == 60


def test_an_image_that_is_alone_beside_a_broken_one_teaches_nothing(tmp_path: Path) -> None:
    write_folders(tmp_path)
    (tmp_path / "train" / "bee" / "002.png").write_bytes(b"no image")
    roles = load_data(f"stream:{SIZE}", tmp_path, validation_from="test:0.5")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    *_, last = train_(flat, roles, make_task(), Recipe(images=36, batch_size=2), seed=0)
    assert last.images == 36
    assert flat[2].num_batches_tracked == 17


def test_a_broken_image_at_the_very_beginning_stops_nothing(tmp_path: Path) -> None:
    write_folders(tmp_path)
    first = load_data(f"stream:{SIZE}", tmp_path).train
    Path(first.index.path(int(first.indices[0]))).write_bytes(b"no image")
    assert load_data(f"stream:{SIZE}", tmp_path).example_input().shape == (2, 3, SIZE, SIZE)


def test_a_split_whose_only_image_is_broken_is_an_error(tmp_path: Path) -> None:
    write_folders(tmp_path)
    train = load_data(f"stream:{SIZE}", tmp_path).train
    alone = train.subset(torch.tensor([5]))
    Path(alone.index.path(int(alone.indices[0]))).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^expected whole images, got 1 of 1 that cannot be read"):
        list(alone.batches([torch.arange(1)]))


def test_a_broken_first_image_does_not_hide_how_large_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folders(tmp_path)
    (tmp_path / "train" / "ant" / "000.png").write_bytes(b"no image")
    monkeypatch.setattr(photographs, "MAX_IN_MEMORY", 1000)
    with pytest.raises(DataError, match="expected the size in pixels"):
        load_data("folders", tmp_path)


def test_many_broken_images_are_an_error(tmp_path: Path) -> None:
    write_folders(tmp_path)
    for number in (1, 3):
        (tmp_path / "train" / "cat" / f"00{number}.jpg").write_bytes(b"no image")
    roles = load_data(f"stream:{SIZE}", tmp_path, validation_from="test:0.5", train_limit=3)
    whole = replace(roles.train, indices=torch.arange(36), targets=torch.zeros(36, dtype=torch.int64))
    with pytest.raises(
        DataError,
        match=r"^expected whole images, got 2 of 36 that cannot be read: .*/cat/001.jpg: .*; .*/003.jpg: ",
    ):
        pass_over(whole, 2)


@pytest.mark.parametrize(("n_broken", "is_error"), [(15, False), (25, True)])
def test_a_part_of_a_split_is_judged_by_its_own_images(tmp_path: Path, n_broken: int, is_error: bool) -> None:
    """As that of each of several workers: all of theirs must not add up to many times the share."""
    image, broken = tmp_path / "image.png", tmp_path / "broken.png"
    Image.new("RGB", (4, 4)).save(image)
    broken.write_bytes(b"no image")
    for part, name, count in (
        ("train", "ant", 3990),
        ("train", "bee", 10),
        ("val", "ant", 1),
        ("val", "bee", 1),
    ):
        (tmp_path / "set" / part / name).mkdir(parents=True)
        for number in range(count):
            source = broken if count > 10 and number < n_broken else image
            os.link(source, tmp_path / "set" / part / name / f"{number:04}.png")
    index = load_photographs(tmp_path / "set", 4, streams=True).train
    part = replace(index, n_workers=0).batches(torch.arange(1000).split(250))
    if is_error:
        with pytest.raises(DataError, match=r"^expected whole images, got 20 of 1000 that cannot be read"):
            list(part)
    else:
        assert sum(len(batch.places) for batch in part) == 1000 - n_broken


def test_an_image_that_has_gone_meanwhile_counts_as_broken(tmp_path: Path) -> None:
    write_folders(tmp_path)
    split = load_data(f"stream:{SIZE}", tmp_path, validation_from="test:0.5").train
    (tmp_path / "train" / "ant" / "000.png").unlink()
    assert len(pass_over(split, 1)[0]) == 35


@pytest.mark.parametrize(
    ("code", "n_tries"),
    [(errno.ELOOP, 1), (errno.EACCES, 1), (errno.EISDIR, 1), (errno.ENAMETOOLONG, 1), (errno.EIO, 4)],
)
def test_a_file_of_this_machine_that_cannot_be_read_is_left_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    n_tries: int,
) -> None:
    write_folders(tmp_path)
    unreadable = tmp_path / "train" / "bee" / "002.png"
    monkeypatch.setattr(store, "PAUSE_S", 0.001)
    tries = []
    read = fsspec.implementations.local.LocalFileSystem.cat_file

    def fail(self: Any, path: str, *others: Any, **options: Any) -> bytes:
        if path != str(unreadable):
            return read(self, path, *others, **options)
        tries.append(path)
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "cat_file", fail)
    split = load_data(f"stream:{SIZE}", tmp_path, validation_from="test:0.5", train_limit=3).train
    whole = replace(split, indices=torch.arange(36), targets=torch.zeros(36, dtype=torch.int64))
    tries.clear()
    assert len(pass_over(whole)[0]) == 35
    assert caplog.messages == [f"image left out: {unreadable}: {os.strerror(code)}"]
    assert len(tries) == n_tries


def test_a_disk_that_is_away_is_an_error(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = load_data(f"stream:{SIZE}", folders).train
    monkeypatch.setattr(store, "PAUSE_S", 0.001)

    def fail(self: Any, path: str, *others: Any, **options: Any) -> bytes:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "cat_file", fail)
    with pytest.raises(DataError, match=r"^expected whole images, got 2 of 32 that .*: Stale file handle; "):
        pass_over(split, 1)


def test_an_object_that_may_not_be_read_yet_is_asked_for_again(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").put(str(folders), "memory://rights/set", recursive=True)
    split = load_data(f"stream:{SIZE}", "memory://rights/set").train
    monkeypatch.setattr(store, "PAUSE_S", 0.001)

    def refuse(self: Any, path: str, *others: Any, **options: Any) -> bytes:
        raise PermissionError(errno.EACCES, "Forbidden", path)

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(DataError, match=r"^cannot read .*, tried 4 times: PermissionError: .*Forbidden"):
        pass_over(split)


def test_a_shard_that_cannot_be_opened_is_one_clear_line(shards: Path) -> None:
    shard = shards / "train" / "shard-000000.tar"
    shard.unlink()
    shard.symlink_to(shard)
    with pytest.raises(DataError, match=r"^cannot read .*/shard-000000\.tar: OSError: .*Too many levels of"):
        load_data(f"stream:{SIZE}", shards)


def test_large_sets_stream_and_small_ones_do_not(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = load_data(f"folders:{SIZE}", folders)
    assert small.train.whereabouts.startswith("in memory (0.")
    monkeypatch.setattr(photographs, "MAX_IN_MEMORY", 54 * 3 * SIZE**2 - 1)
    large = load_data(f"folders:{SIZE}", folders)
    assert large.train.whereabouts == "streamed from class folders"
    assert_same_roles(large, small)
    with pytest.raises(
        DataError, match=r"^expected the size in pixels that the images of .* try folders:224$"
    ):
        load_data("folders", folders)


def test_fingerprint_follows_the_files_and_the_cut_but_not_the_place(folders: Path, tmp_path: Path) -> None:
    write_folders(tmp_path / "copy")
    first, copy = (load_data(f"stream:{SIZE}", root) for root in (folders, tmp_path / "copy"))
    assert first.fingerprint() == copy.fingerprint()
    assert first.train.fingerprint() == first.train.to("meta").fingerprint()
    others = [
        load_data(f"stream:{SIZE + 1}", folders),
        load_data(f"stream:{SIZE}", folders, seed=1),
        load_data(f"folders:{SIZE}", folders),
    ]
    assert first.fingerprint() not in [other.fingerprint() for other in others]
    (tmp_path / "copy" / "train" / "ant" / "000.png").rename(tmp_path / "copy" / "train" / "ant" / "999.png")
    assert load_data(f"stream:{SIZE}", tmp_path / "copy").fingerprint() != first.fingerprint()


def test_a_store_that_fails_for_a_while_is_asked_again(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = load_data(f"stream:{SIZE}", folders).train
    expected = pass_over(split)[0]
    monkeypatch.setattr(store, "PAUSE_S", 0.001)
    n_failures = 3
    read = fsspec.implementations.local.LocalFileSystem.cat_file

    def fail_at_first(self: Any, path: str, *others: Any, **options: Any) -> bytes:
        nonlocal n_failures
        if n_failures > 0:
            n_failures -= 1
            raise ConnectionError("reset by peer")
        return read(self, path, *others, **options)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "cat_file", fail_at_first)
    assert torch.equal(pass_over(split)[0], expected)
    n_failures = 1000
    with pytest.raises(
        DataError, match=r"^cannot read .*\.png, tried 4 times: ConnectionError: reset by peer$"
    ):
        pass_over(split, 1)


def test_a_worker_that_is_killed_is_one_clear_line(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = load_data(f"stream:{SIZE}", folders).train
    monkeypatch.setattr(
        streaming._Batches, "load", lambda self, positions: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(DataError, match=r"^a process that reads images ended: DataLoader worker"):
        pass_over(split, 1)


def test_no_worker_outlives_its_pass(folders: Path) -> None:
    split = replace(load_data(f"stream:{SIZE}", folders).train, n_workers=2)
    batches = split.batches(torch.arange(len(split)).split(3))
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def test_workers_are_no_more_than_shared_memory_has_room_for(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = replace(load_data(f"stream:{SIZE}", folders).train, n_workers=8)
    plan = torch.arange(32).split(4)
    assert split._count_workers(plan) == 8
    bytes_ahead = 2 * 4 * 3 * SIZE**2
    monkeypatch.setattr(
        streaming.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 6 * bytes_ahead + 1})
    )
    assert split._count_workers(plan) == 3
    assert split._count_workers(plan[:2]) == 2

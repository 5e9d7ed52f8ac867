"""Places that do not hold what was expected, and shards that are broken: one clear line each."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from dirprune.data import load_data, shards
from dirprune.errors import DataError

from .photograph_folders import CLASSES, write_folders, write_shard, write_shards


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with shards."""
    write_folders(tmp_path / "folders", n_train=12, n_held_out=4)
    write_shards(tmp_path / "set", tmp_path / "folders")
    return tmp_path / "set"


def second(root: Path) -> Path:
    return root / "train" / "shard-000001.tar"


def cut_data(root: Path) -> None:
    with tarfile.open(second(root)) as archive:
        member = archive.getmembers()[6]
    second(root).write_bytes(second(root).read_bytes()[: member.offset_data + member.size // 2])


def cut_header(root: Path) -> None:
    with tarfile.open(second(root)) as archive:
        member = archive.getmembers()[6]
    second(root).write_bytes(second(root).read_bytes()[: member.offset + 100])


def cut_between(root: Path) -> None:
    with tarfile.open(second(root)) as archive:
        member = archive.getmembers()[6]
    second(root).write_bytes(second(root).read_bytes()[: member.offset])


def leave_labels_out(root: Path) -> None:
    write_shard(second(root), [("a.png", b"x"), ("b.png", b"y"), ("b.cls", b"1")])


def leave_images_out(root: Path) -> None:
    write_shard(second(root), [("a.cls", b"1"), ("a.txt", b"y")])


def give_other_json(root: Path) -> None:
    write_shard(second(root), [("a.png", b"x"), ("a.json", b'{"caption": "dog"}')])


def give_bytes(root: Path) -> None:
    write_shard(second(root), [("a.png", b"x"), ("a.cls", b"\xff\xfe")])


def give_large_label(root: Path) -> None:
    write_shard(second(root), [("a.png", b"x"), ("a.cls", b"99999999999999999999")])


def compress(root: Path) -> None:
    second(root).write_bytes(gzip.compress(second(root).read_bytes()))


def empty(root: Path) -> None:
    second(root).write_bytes(b"")


def leave_class_out(root: Path) -> None:
    for path in (root / "val").iterdir():
        path.unlink()
    members = [("a.png", b"x"), ("a.cls", b"0"), ("b.png", b"x"), ("b.cls", b"1")]
    write_shard(root / "val" / "a.tar", members)


def leave_middle_class_out(root: Path) -> None:
    for path in (root / "val").iterdir():
        path.unlink()
    write_shard(
        root / "val" / "a.tar",
        [
            member
            for key in "abc"
            for member in ((f"{key}.png", b"x"), (f"{key}.cls", b"0" if key < "b" else b"2"))
        ],
    )


def leave_one_class(root: Path) -> None:
    for part in ("train", "val"):
        for path in (root / part).iterdir():
            path.unlink()
        write_shard(root / part / "a.tar", [("a.png", b"x"), ("a.cls", b"0")])


SPOILT: list[tuple[Callable[[Path], None], str]] = [
    (
        cut_data,
        r"^expected a whole tar shard in .*/shard-000001\.tar, got one that is cut short after 4 images",
    ),
    (
        cut_header,
        r"^expected a whole tar shard in .*/shard-000001\.tar, got one that is cut short after 3 images",
    ),
    (
        cut_between,
        r"^expected a whole tar shard in .*/shard-000001\.tar, got one that is cut short after 3 imag",
    ),
    (
        leave_labels_out,
        r"^expected a label beside each image \(\.cls or \.json\) in .*/shard-000001\.tar, "
        r"found none for 1 of 2, the first is 'a'$",
    ),
    (leave_images_out, r"^expected images \(.*\) in the shard .*/shard-000001\.tar, found none$"),
    (
        give_other_json,
        r"^expected an object with 'label' or 'cls' in a\.json of .*/shard-000001\.tar, got b'",
    ),
    (give_bytes, r"^expected a number or a name in a\.cls of .*/shard-000001\.tar, got b'\\xff\\xfe'$"),
    (give_large_label, r"^expected labels from 0 without gaps, got 99999999999999999999 in 27 images$"),
    (compress, r"^expected an uncompressed tar shard in .*/shard-000001\.tar, got "),
    (empty, r"^expected an uncompressed tar shard in .*/shard-000001\.tar, got empty file$"),
    (
        leave_class_out,
        r"^expected the same classes in .*/train and .*/val, got '2' in train alone \(3 and 2 clas",
    ),
    (leave_middle_class_out, r"^expected every one of the 3 classes in the test role, got none of class 1 "),
    (leave_one_class, r"^expected at least two classes in .*/train, got 1$"),
]


@pytest.mark.parametrize(("spoil_", "message"), SPOILT, ids=[spoil_.__name__ for spoil_, _ in SPOILT])
def test_broken_shards_are_one_clear_line(root: Path, spoil_: Callable[[Path], None], message: str) -> None:
    load_data("stream:16", root)  # what is known of the whole ones must not hide it
    spoil_(root)
    with pytest.raises(DataError, match=message) as caught:
        load_data("stream:16", root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_cls_first", [True, False])
@pytest.mark.parametrize("metadata", [b'{"caption": "dog"}', b'{"label": 2}', b"no JSON"])
def test_of_two_files_beside_an_image_the_cls_has_the_label(
    root: Path, is_cls_first: bool, metadata: bytes
) -> None:
    def write_both(label: int) -> dict[str, bytes]:
        both = {".cls": b"%d" % label, ".json": metadata}
        return both if is_cls_first else dict(reversed(both.items()))

    write_shards(root.parent / "both", root.parent / "folders", labels=write_both)
    given, expected = (load_data("stream:16", path) for path in (root.parent / "both", root))
    assert given.n_classes == expected.n_classes
    assert torch.equal(given.train.targets, expected.train.targets)


def test_metadata_without_an_image_need_no_label(root: Path) -> None:
    members = [("a.png", b"x"), ("a.cls", b"1"), ("about.json", b'{"license": "none"}')]
    write_shard(second(root), members)
    assert load_data("stream:16", root).n_classes == 3


def test_shards_are_gone_through_once_until_one_changes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    read = shards._read_shard
    monkeypatch.setattr(
        shards, "_read_shard", lambda store, entry: (seen.append(entry.name), read(store, entry))[1]
    )
    first, again = (load_data("stream:16", root) for _ in range(2))
    assert len(seen) == 6
    assert first.fingerprint() == again.fingerprint()
    write_shards(
        root.parent / "other", root.parent / "folders", labels=lambda label: {".cls": b"%d" % (2 - label)}
    )
    second(root).write_bytes(second(root.parent / "other").read_bytes())
    assert load_data("stream:16", root).fingerprint() != first.fingerprint()
    assert len(seen) == 10


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "memory://shop/picturs",
            r"^expected data in memory://shop/picturs, found nothing there; did you mean 'pict",
        ),
        (
            "memory://nowhere/at/all",
            r"^expected data in memory://nowhere/at/all, found nothing there; check the",
        ),
        ("memory://shop/empty", r"^expected train/<class>/<image> and test or val .* found nothing$"),
        ("memory://shop", r"^expected train/<class>/<image> and test or val .* found 'empty', 'pictures'$"),
        (
            "s4://shop/pictures",
            r"^unknown kind of place s4:// .*; did you mean 's3'\? known: az, file, gs, https",
        ),
        ("sftp://shop/pictures", r"^expected the package that reads sftp://, got none \(.*paramiko"),
    ],
)
def test_a_place_that_is_not_there_is_one_clear_line(tmp_path: Path, uri: str, message: str) -> None:
    write_folders(tmp_path / "set", n_train=2, n_held_out=2)
    files = fsspec.filesystem("memory")
    files.put(str(tmp_path / "set"), "memory://shop/pictures", recursive=True)
    files.mkdirs("/shop/empty", exist_ok=True)
    with pytest.raises(DataError, match=message) as caught:
        load_data("stream:16", uri)
    assert "\n" not in str(caught.value)


def test_links_count_as_what_they_lead_to(tmp_path: Path) -> None:
    write_folders(tmp_path / "set")
    linked = tmp_path / "linked::#"
    (linked / "train").mkdir(parents=True)
    (linked / "val").symlink_to(tmp_path / "set" / "val")
    for name in CLASSES[:2]:
        (linked / "train" / name).symlink_to(tmp_path / "set" / "train" / name)
    (linked / "train" / CLASSES[2]).mkdir()
    for path in (tmp_path / "set" / "train" / CLASSES[2]).iterdir():
        (linked / "train" / CLASSES[2] / path.name).symlink_to(path)
    for kind in ("folders", "stream"):
        first, other = (load_data(f"{kind}:16", root) for root in (linked, tmp_path / "set"))
        assert first.fingerprint() == other.fingerprint()


def test_only_photographs_lie_in_object_stores() -> None:
    with pytest.raises(
        DataError, match=r"^expected a folder with the data set 'mnist', got s3://x; try --dataset f"
    ):
        load_data("mnist", "s3://x")


def test_deep_grey_and_transparent_images_are_converted_rightly_while_streaming(tmp_path: Path) -> None:
    write_folders(tmp_path, n_train=4)
    folder = tmp_path / "train" / CLASSES[0]
    Image.fromarray(np.full((40, 30), 0x9A40, np.uint16)).save(folder / "000.png")
    Image.fromarray(np.full((30, 30), 77, np.uint8)).save(folder / "001.jpg")
    clear = np.full((30, 30, 4), (9, 8, 7, 0), np.uint8)
    Image.fromarray(clear).save(folder / "002.png")
    train = load_data("stream:24", tmp_path, validation_from="test:0.5").train
    (batch,) = train.batches([torch.arange(3)])
    images = batch.inputs
    assert images[0].unique().tolist() == [0x9A]
    assert images[1].unique().tolist() == [77]
    assert images[2, :, 3, 3].tolist() == [9, 8, 7]


def test_a_set_is_called_by_its_folder_also_from_within(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert load_data("stream:16", Path()).name == "set-16"

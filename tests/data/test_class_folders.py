"""CIFAR-10 and class folders, on a few generated images."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import transforms
from torchvision.datasets import CIFAR10, CIFAR100, SVHN, ImageFolder

from dirprune.data import class_folders, load_data
from dirprune.data.class_folders import read_class_folders
from dirprune.data.images import BROKEN, decode
from dirprune.data.photographs import load_photographs
from dirprune.errors import DataError
from tests.full_disk import no_room

TEN = tuple(f"class{number}" for number in range(10))


def write_image(path: Path, value: int, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), (value, 2, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))


def write_folders(root: Path, classes: Sequence[str] = TEN, n_train: int = 4, suffix: str = ".webp") -> None:
    """Write n_train and 2 images of every class; the red of an image is 10 * class + its number."""
    for part, count in (("train", n_train), ("test", 2)):
        for label, name in enumerate(classes):
            for number in range(count):
                write_image(root / part / name / f"{number}{suffix}", 10 * label + number)


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_images_are_read_whole_and_sorted_by_class_and_name(tmp_path: Path, suffix: str) -> None:
    write_folders(tmp_path, ("cat", "ant"), suffix=suffix)
    train, labels, held_out, held_out_labels, classes = read_class_folders(tmp_path)
    assert classes == ("ant", "cat")
    assert train.shape == (8, 3, 32, 32)
    assert train.dtype == torch.uint8
    assert train[:, 0, 5, 7].tolist() == [10, 11, 12, 13, 0, 1, 2, 3]
    assert train[0, :, 0, 0].tolist() == [10, 2, 3]
    assert labels.tolist() == [0] * 4 + [1] * 4
    assert held_out[:, 0, 0, 0].tolist() == [10, 11, 0, 1]
    assert held_out_labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_grey_transparent_and_palette_images_become_colour(tmp_path: Path, mode: str) -> None:
    write_folders(tmp_path, ("ant", "bee"), suffix=".png")
    write_image(tmp_path / "train" / "ant" / "0.png", 200, mode=mode)
    train, *_ = read_class_folders(tmp_path)
    expected = Image.open(tmp_path / "train" / "ant" / "0.png").convert("RGB")
    assert train[0, :, 3, 3].tolist() == list(expected.getpixel((3, 3)))


def test_class_folders_are_the_data_set_cifar10_in_its_roles(tmp_path: Path) -> None:
    write_folders(tmp_path)
    roles = load_data("cifar10", tmp_path, validation_from="test:0.5", train_limit=20)
    assert [len(split) for split in (roles.train, roles.calibration, roles.validation, roles.test)] == [
        20,
        10,
        10,
        10,
    ]
    assert (roles.train.inputs[:, 0, 0, 0] // 10).tolist() == roles.train.targets.tolist()
    normalised = roles.normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten()
    torch.testing.assert_close(normalised, torch.tensor([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225]))


@pytest.mark.parametrize(
    ("name", "kind", "labels", "n_classes"),
    [("cifar10", CIFAR10, "labels", 10), ("cifar100", CIFAR100, "fine_labels", 100)],
)
def test_torchvisions_own_files_are_read_when_they_are_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[CIFAR10],
    labels: str,
    n_classes: int,
) -> None:
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    n_each = max(10, 2 * n_classes // len(kind.train_list))  # each class twice among those to train on
    for place, (file, _) in enumerate([*kind.train_list, *kind.test_list]):
        data = np.zeros((n_each, 3, 32, 32), np.uint8)
        data[:, 1, 2, 3] = (n_each * place + np.arange(n_each)) % 256
        entry = {"data": data.reshape(n_each, -1), labels: [i % n_classes for i in range(n_each)]}
        (folder / file).write_bytes(pickle.dumps(entry))
    roles = load_data(name, tmp_path, validation_from="train:0.5")
    assert roles.n_classes == n_classes
    assert roles.train.inputs[:, 1, 2, 3].tolist() == roles.train.indices.tolist()
    n_train = n_each * len(kind.train_list)
    assert roles.test.inputs[:, 1, 2, 3].tolist() == [(n_train + i) % 256 for i in range(len(roles.test))]
    assert roles.test.targets.tolist() == [i % n_classes for i in range(len(roles.test))]


def test_torchvisions_files_with_another_check_sum_are_never_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list]:
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch harm'\ntR.")
    with pytest.raises(DataError, match=r"^expected whole files in .*cifar-10-batches-py, got a broken one"):
        load_data("cifar10", tmp_path)


def break_images(root: Path) -> None:
    for number in (1, 2):
        (root / "train" / "class3" / f"{number}.webp").write_bytes(b"RIFF no image")


def break_first_images(root: Path) -> None:
    for number in (0, 1, 2):
        (root / "train" / "class0" / f"{number}.webp").write_bytes(b"RIFF no image")


def shorten_images(root: Path) -> None:
    for number in (1, 2):
        path = root / "train" / "class3" / f"{number}.webp"
        path.write_bytes(path.read_bytes()[:-12])


def resize_image(root: Path) -> None:
    write_image(root / "test" / "class3" / "1.webp", 0, size=(16, 8))


def empty_class(root: Path) -> None:
    for path in (root / "test" / "class3").iterdir():
        path.unlink()


def rename_class(root: Path) -> None:
    (root / "test" / "class3").rename(root / "test" / "klass3")


@pytest.mark.parametrize(
    ("spoil_", "message"),
    [
        *(
            (spoil_, rf"^expected whole images, got 2 of 60 that cannot be read: /.*{places}.*$")
            for spoil_, places in (
                (break_images, r"/train/class3/1\.webp: cannot identify image file; /.*/class3/2\.webp: "),
                (shorten_images, r"/train/class3/1\.webp: .*; /.*/class3/2\.webp: "),
                (break_first_images, r"/train/class0/0\.webp: .*; /.*/class0/1\.webp: "),
            )
        ),
        (
            resize_image,
            r"^expected images of 32 x 32 pixels, the size of .*, got 16 x 8 in .*/1\.webp; try folders:32",
        ),
        (empty_class, r"^expected images \(.*\) of class 'class3', found none in .*test/class3$"),
        (
            rename_class,
            r"^expected the same classes in .*, got 'class3' in train alone \(10 and 10",
        ),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path: Path, spoil_, message: str) -> None:
    write_folders(tmp_path)
    spoil_(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_data("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_folders(tmp_path, ("ant",))
    with pytest.raises(DataError, match=r"^expected at least two classes in .*train, got 1$"):
        read_class_folders(tmp_path)


def test_other_class_folders_are_not_taken_for_cifar10(tmp_path: Path) -> None:
    write_folders(tmp_path, ("ant", "bee"))
    with pytest.raises(
        DataError,
        match=r"^expected 10 classes of 32 x 32 pixels, .*, got 2 of 32 x 32; try --dataset folders:32$",
    ):
        load_data("cifar10", tmp_path)


def test_a_folder_with_neither_layout_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found neither cifar-10-batches-py there nor train/<class>"):
        load_data("cifar10", tmp_path)


def test_what_was_decoded_is_kept_until_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_decoded = []
    decode = class_folders._decode
    monkeypatch.setattr(
        class_folders,
        "_decode",
        lambda paths, *sizes: (n_decoded.append(len(paths)), decode(paths, *sizes))[1],
    )
    monkeypatch.setattr(class_folders, "N_IMAGES_KEPT", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folders(tmp_path, ("ant", "bee"))
    first, again = (read_class_folders(tmp_path) for _ in range(2))
    assert len(n_decoded) == 1
    assert all(torch.equal(a, b) for a, b in zip(first[:4], again[:4], strict=True))

    changed = tmp_path / "train" / "bee" / "0.webp"
    write_image(changed, 99)
    os.utime(changed, ns=(1, 1))
    assert read_class_folders(tmp_path)[0][4, 0, 0, 0] == 99

    for stored in (tmp_path / "cache").rglob("*.safetensors"):
        stored.write_bytes(stored.read_bytes()[:100])
    assert read_class_folders(tmp_path)[0][4, 0, 0, 0] == 99
    assert len(n_decoded) == 3


def test_without_room_for_what_was_decoded_images_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_folders, "N_IMAGES_KEPT", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folders(tmp_path, ("ant", "bee"))
    with no_room():
        first = read_class_folders(tmp_path)
    assert not list((tmp_path / "cache").rglob("*safetensors*"))
    assert torch.equal(first[0], read_class_folders(tmp_path)[0])


def test_of_what_was_decoded_of_a_folder_in_a_size_only_the_last_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_folders, "N_IMAGES_KEPT", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("one", "two"):
        write_folders(tmp_path / name, ("ant", "bee"))
        read_class_folders(tmp_path / name)
    read_class_folders(tmp_path / "one", 24)
    read_class_folders(tmp_path / "one", 24, 28)
    folder = tmp_path / "cache" / "dirprune" / "decoded"
    (folder / "older.safetensors").write_bytes(b"of a version that did not say of what")
    before = set(folder.iterdir())
    os.utime(tmp_path / "one" / "train" / "bee" / "0.webp", ns=(1, 1))
    read_class_folders(tmp_path / "one", 24)
    after = set(folder.iterdir())
    assert len(before) == len(after) == 5
    assert len(before - after) == 1
    monkeypatch.setattr(class_folders, "_decode", lambda *given: pytest.fail("decoded again"))
    read_class_folders(tmp_path / "one", 24)
    read_class_folders(tmp_path / "two")


def test_images_of_all_sizes_and_modes_become_squares_of_one_size(tmp_path: Path) -> None:
    write_folders(tmp_path, ("ant", "bee"), suffix=".png")
    write_image(tmp_path / "train" / "ant" / "4.png", 7, size=(50, 40))
    for number, mode in enumerate(("L", "RGBA", "P"), 5):
        write_image(tmp_path / "train" / "ant" / f"{number}.png", 9, size=(24, 60), mode=mode)
    deep = np.full((40, 30), 0x9A40, np.uint16)
    Image.fromarray(deep).save(tmp_path / "train" / "ant" / "8.png")
    roles = load_data("folders:24", tmp_path, validation_from="train:0.4")
    assert roles.input_shape == (3, 24, 24)
    assert roles.n_classes == 2
    assert roles.name == f"{tmp_path.name}-24"
    train, labels, *_ = read_class_folders(tmp_path, 24)
    assert labels.tolist() == [0] * 9 + [1] * 4
    assert train[4, 0].unique().tolist() == [7]
    assert train[8].unique().tolist() == [0x9A]  # the upper half of 16 bits, not clipped to 255


@pytest.mark.parametrize("name", ["folders:8", "stream:8"])
def test_class_folders_hold_the_images_that_torchvision_finds_there(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for place, suffix in enumerate(("bmp", "jpeg", "PPM", "pgm", "tif", "tiff", "png", "webp")):
        for part in ("train", "test"):
            for kind in ("ant", "bee", "bee/small", "bee/small/red", "bee/small-", "bee/.hidden/small"):
                write_image(tmp_path / part / kind / f"{place}.{suffix}", 10 * place, size=(8, 8))
    (tmp_path / "train" / "bee" / "small" / "up").symlink_to(tmp_path / "train" / "bee")
    for file in ("ant/1.HEIC", "bee/small/2.heic", "bee/notes", "bee/.DS_Store"):
        (tmp_path / "train" / file).write_bytes(b"?")
    train = load_data(name, tmp_path, validation_from="test:0.5").train
    images = train.in_memory().inputs
    (tmp_path / "train" / "bee" / "small" / "up").unlink()
    folder = ImageFolder(tmp_path / "train")
    expected = [
        (np.asarray(image)[0, 0, 0], label)
        for (image, label), (path, _) in zip(folder, folder.samples, strict=True)
        if ".hidden" not in path
    ]
    assert len(images) == len(expected) == 5 * 8
    assert train.targets.tolist() == [label for _, label in expected]
    found = images[:, 0, 0, 0].tolist()
    assert all(abs(own - int(other)) < 5 for own, (other, _) in zip(found, expected, strict=True))
    (line,) = [one.getMessage() for one in caplog.records if "passed over" in one.getMessage()]
    assert line.startswith(f"3 files in {tmp_path}/train are passed over, as they do not end in .bmp, .gif, ")
    assert line.endswith(": 2 .heic, 1 without")


def test_an_image_of_fractions_counts_as_broken(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 0.5, np.float32)).save(tmp_path / "0.tif")
    with pytest.raises(BROKEN, match=r"its pixels are floating-point numbers, whose range nobody knows"):
        decode(tmp_path / "0.tif", None)


@pytest.mark.parametrize("pixels", [(200, 3), (-1, 300), (300, 70_000), (2**31 - 1, 0), (0, 0)], ids=str)
def test_numbers_of_32_bits_whose_range_nobody_knows_count_as_broken(pixels: tuple[int, int]) -> None:
    stored = io.BytesIO()
    Image.fromarray(np.array([pixels] * 2, np.int32)).save(stored, "TIFF")
    said = rf"^its pixels are whole numbers in {min(pixels)}\.\.{max(pixels)}, whose range nobody knows$"
    with pytest.raises(ValueError, match=said):
        decode(stored, None)


@pytest.mark.parametrize("kind", [np.uint16, np.int32])
@pytest.mark.parametrize("suffix", ["PPM", "TIFF"])
def test_of_16_bits_the_upper_8_count_also_where_32_hold_them(kind: type, suffix: str) -> None:
    stored = io.BytesIO()
    Image.fromarray(np.array([[0x9A40, 200, 0xFFFF]], kind)).save(stored, suffix)
    stored.seek(0)
    assert decode(stored, None)[0].tolist() == [[0x9A, 0, 0xFF]]
    dark = io.BytesIO()
    Image.fromarray(np.array([[200]], np.uint16)).save(dark, suffix)
    assert decode(dark, None)[0].tolist() == [[0]]


def test_a_tiff_whose_numbers_are_none_counts_as_broken() -> None:
    stored = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(stored, "TIFF")
    spoilt = bytearray(stored.getvalue())
    spoilt[spoilt.index(b"\x11\x01\x04\x00") + 2] = 7  # where the pixels begin: bytes, no number any more
    with pytest.raises(BROKEN, match="cannot be interpreted as an integer"):
        decode(io.BytesIO(spoilt), None)


def test_the_middle_of_resized_images_is_what_torchvision_cuts_out_in_memory_and_streamed(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name, shape in (("ant", (47, 61)), ("bee", (80, 33)), ("cat", (20, 20))):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number}.png")
    cut = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28), transforms.PILToTensor()])
    expected = torch.stack([image for image, _ in ImageFolder(tmp_path / "train", cut)])
    fingerprints = set()
    for name in ("folders:28/32", "stream:28/32", "stream:28"):
        roles = load_data(name, tmp_path, validation_from="test:0.5")
        fingerprints.add(roles.fingerprint())
        assert torch.equal(roles.train.in_memory().inputs, expected) == (name != "stream:28")
        assert roles.name == f"{tmp_path.name}-28" + ("-32" if "/" in name else "")
    assert len(fingerprints) == 3


def test_a_test_part_without_labels_is_passed_over(tmp_path: Path) -> None:
    write_folders(tmp_path, ("ant", "bee"))
    (tmp_path / "test").rename(tmp_path / "val")
    write_image(tmp_path / "test" / "0.png", 1)
    *_, held_out_labels, classes = read_class_folders(tmp_path)
    assert (classes, len(held_out_labels)) == (("ant", "bee"), 4)
    assert len(load_photographs(tmp_path, 32, streams=False).held_out) == 4


def test_held_out_part_may_be_called_val(tmp_path: Path) -> None:
    write_folders(tmp_path, ("ant", "bee"))
    (tmp_path / "test").rename(tmp_path / "val")
    assert len(load_data("folders", tmp_path, validation_from="test:0.5").test) == 2
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "wasp")
    with pytest.raises(
        DataError, match=r"expected the same classes in .*/train and .*/val, got 'bee' in train"
    ):
        load_data("folders", tmp_path)


def test_a_part_whose_only_images_are_broken_is_one_clear_line(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    for name in ("a", "b"):
        for part, count in (("train", 150), ("test", 1)):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(pixels).save(tmp_path / part / name / f"{number:03}.png")
        (tmp_path / "test" / name / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"expected images that can be read in .*test, all 2 are broken"):
        read_class_folders(tmp_path)


def test_few_unreadable_images_are_left_out_and_named_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_folders, "N_IMAGES_KEPT", 10)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_folders(tmp_path, ("ant", "bee"), n_train=60)
    (tmp_path / "train" / "ant" / "0.webp").write_bytes(b"no image")
    for _ in ("decoded", "kept from before"):
        caplog.clear()
        train, labels, *_ = read_class_folders(tmp_path)
        assert len(train) == len(labels) == 119
        assert train[0, 0, 0, 0] == 1
        assert "1 of 124 images left out: " in caplog.text
        assert "ant/0.webp" in caplog.text
    (tmp_path / "train" / "bee" / "3.webp").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^expected whole images, got 2 of 124 that cannot be read: "):
        read_class_folders(tmp_path)


@pytest.mark.parametrize("kind", ["folders", "stream"])
def test_a_single_unreadable_image_of_few_is_left_out_in_memory_and_streamed(
    tmp_path: Path, kind: str
) -> None:
    write_folders(tmp_path, ("ant", "bee"))
    (tmp_path / "train" / "ant" / "0.webp").write_bytes(b"no image")
    train = load_data(f"{kind}:8", tmp_path, validation_from="test:0.5").train
    assert len(train.in_memory()) == 7


@pytest.fixture(params=["folders", "folders kept", "stream"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """How images are read: into memory, also when what was decoded is kept on the disk, or streamed."""
    name, _, kept = request.param.partition(" ")
    if kept:
        monkeypatch.setattr(class_folders, "N_IMAGES_KEPT", 10)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"{name}:8"


def test_a_link_to_itself_is_left_out_and_named_in_memory_and_streamed(
    tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_folders(tmp_path, ("ant", "bee"))
    link = tmp_path / "train" / "ant" / "0.webp"
    link.unlink()
    link.symlink_to(link)
    train = load_data(way, tmp_path, validation_from="test:0.5").train
    assert len(train.in_memory()) == 7
    (line,) = caplog.messages
    assert line.endswith(f" left out: {link}: Too many levels of symbolic links")


def test_names_that_are_no_utf_8_are_names_like_others(
    tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_folders(tmp_path, ("ant", "bee"))
    folder = os.fsencode(tmp_path / "train" / "ant")
    for number, name in enumerate((b"\xff\xe9", b"\xc3\xa9")):
        Path(os.fsdecode(folder + b"/%d.webp" % number)).rename(os.fsdecode(folder + b"/" + name + b".webp"))
    Path(os.fsdecode(folder + b"/\xff.\xfe")).write_bytes(b"?")
    train = load_data(way, tmp_path, validation_from="test:0.5").train
    assert train.in_memory().inputs[:, 0, 0, 0].tolist() == [2, 3, 1, 0, 10, 11, 12, 13]
    Path(os.fsdecode(folder + b"/\xff\xe9.webp")).write_bytes(b"no image")
    train = load_data(way, tmp_path, validation_from="test:0.5").train
    assert len(train.in_memory()) == 7
    *_, passed_over, line = caplog.messages
    assert passed_over.endswith(": 1 .\\xfe")
    assert f"{tmp_path}/train/ant/\\xff\\xe9.webp: cannot identify image file" in line
    assert line.isascii()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folders:big", r"expected a size in pixels behind folders:, got 'big'; try folders:112"),
        ("folders:224/", r"expected a size in pixels behind folders:, got '224/'; try folders:112, or fold"),
        (
            "stream:256/224",
            r"expected a size in pixels behind folders:, got '256/224'; try folders:112, or fo",
        ),
        ("mnist:28", r"unknown data set 'mnist:28'"),
        ("folders", r"expected train/<class>/<image> and test or val likewise in"),
    ],
)
def test_what_names_no_folders_is_one_clear_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(name, tmp_path)


def test_folders_are_never_downloaded() -> None:
    with pytest.raises(DataError, match="give --data DIR, which holds train and val or test"):
        load_data("folders")


@pytest.mark.parametrize(("name", "n_classes"), [("svhn", 10), ("cifar100", 100)])
def test_other_known_sets_may_lie_in_class_folders(tmp_path: Path, name: str, n_classes: int) -> None:
    classes = [f"{number:02}" for number in range(n_classes)]
    write_folders(tmp_path, classes, n_train=2)
    roles = load_data(name, tmp_path, validation_from="test:0.5")
    assert roles.n_classes == n_classes
    assert roles.name == name
    assert roles.train.targets.tolist() == [label for label in range(n_classes) for _ in range(2)]
    (tmp_path / "train" / "new").mkdir()
    (tmp_path / "test" / "new").mkdir()
    for part in ("train", "test"):
        write_image(tmp_path / part / "new" / "0.webp", 1)
    with pytest.raises(
        DataError, match=rf"^expected {n_classes} classes of 32 x 32 .*, got {n_classes + 1} of"
    ):
        load_data(name, tmp_path)


def test_svhn_is_read_from_its_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images, files = {}, {}
    for part, n in (("train", 40), ("test", 20)):
        images[part] = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        labels = np.arange(n).reshape(-1, 1) % 10 + 1  # 10 stands for the digit 0
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": images[part], "y": labels})
        files[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    with pytest.raises(DataError, match="expected the data set 'svhn'"):  # not the published files
        load_data("svhn", tmp_path)
    monkeypatch.setattr(SVHN, "split_list", files)
    roles = load_data("svhn", tmp_path, validation_from="train:0.25")
    assert roles.input_shape == (3, 32, 32)
    assert roles.test.targets.tolist() == [*range(1, 10), 0] * 2
    assert torch.equal(roles.test.inputs[3], torch.from_numpy(images["test"][:, :, :, 3]).permute(2, 0, 1))

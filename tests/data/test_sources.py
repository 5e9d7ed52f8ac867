"""Data sets by name and by function."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from dirprune.data import DataRoles, is_downloaded, load_data, make_roles
from dirprune.errors import DataError

RAW_FILES = [
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
]


def write_idx(raw: Path, n_train: int = 40, n_test: int = 20) -> None:
    """Write a small data set in MNIST's format; pixel (0, 0) of image i is i."""
    raw.mkdir(parents=True)
    for part, count in (("train", n_train), ("t10k", n_test)):
        images = torch.zeros(count, 28, 28, dtype=torch.uint8)
        images[:, 0, 0] = torch.arange(count)
        sizes = b"".join(size.to_bytes(4, "big") for size in (count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + images.numpy().tobytes())
        labels = bytes(number % 10 for number in range(count))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + count.to_bytes(4, "big") + labels)


def test_only_data_sets_by_name_are_downloaded():
    assert is_downloaded("cifar10")
    assert not is_downloaded("folders:112")
    assert not is_downloaded("stream:224/256")
    assert not is_downloaded(load_data)


def test_digits_come_without_a_folder_and_fit_lenet() -> None:
    roles = load_data("digits")
    assert roles.input_shape == (1, 28, 28)
    assert roles.train.inputs.dtype == torch.uint8
    assert [len(split) for split in (roles.train, roles.validation, roles.test)] == [1294, 144, 359]
    assert len(roles.calibration) == 647
    for split in (roles.train, roles.validation, roles.test):
        counts = torch.bincount(split.targets, minlength=10)
        assert counts.max() <= 1.2 * counts.min()
    normalised = roles.normalise(roles.train.inputs)
    assert abs(normalised.mean().item()) < 0.02
    assert abs(normalised.std().item() - 1) < 0.02


def test_the_held_out_digits_are_the_same_for_every_seed() -> None:
    first, other = load_data("digits", seed=0), load_data("digits", seed=1)
    assert torch.equal(first.test.inputs, other.test.inputs)
    assert not torch.equal(first.validation.inputs, other.validation.inputs)


def test_no_held_out_digit_is_a_training_digit() -> None:
    roles = load_data("digits")
    train = {bytes(image.numpy()) for image in torch.cat([roles.train.inputs, roles.validation.inputs])}
    assert not any(bytes(image.numpy()) in train for image in roles.test.inputs)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_a_folder_as_torchvision_lays_it_out_is_read_and_not_written(
    tmp_path: Path, name: str, folder: str
) -> None:
    write_idx(tmp_path / folder / "raw")
    roles = load_data(name, tmp_path, validation_from="test:0.5")
    assert roles.name == name
    assert torch.equal(roles.train.inputs[:, 0, 0, 0], torch.arange(40, dtype=torch.uint8))
    assert torch.equal(roles.test.inputs[:, 0, 0, 0].long(), roles.test.indices)
    assert torch.equal(roles.test.targets, roles.test.indices % 10)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == RAW_FILES


def test_settings_reach_the_roles(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    roles = load_data("mnist", tmp_path, validation_from="test:0.5", train_limit=10, seed=5)
    other = load_data("mnist", tmp_path, validation_from="test:0.5", train_limit=10, seed=6)
    assert (len(roles.train), len(roles.validation), len(roles.test)) == (10, 10, 10)
    assert roles.fingerprint() != other.fingerprint()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "digits"])
def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        DataError, match=rf"^expected a folder with the data set '{name}', found none at .*nowhere$"
    ):
        load_data(name, tmp_path / "nowhere")


def test_a_folder_without_the_files_says_what_is_expected_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"^expected the data set 'mnist' in .*, found no MNIST/raw/train-images-idx3-ubyte there$",
    ):
        load_data("mnist", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", RAW_FILES)
def test_one_missing_file_is_one_clear_line(tmp_path: Path, missing: str) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / missing).unlink()
    with pytest.raises(DataError, match=f"found no MNIST/raw/{missing} there"):
        load_data("mnist", tmp_path)


@pytest.mark.parametrize("broken", RAW_FILES)
@pytest.mark.parametrize("n_kept", [0, 3, 9, 30])
def test_a_truncated_file_is_one_clear_line(tmp_path: Path, broken: str, n_kept: int) -> None:
    write_idx(tmp_path / "MNIST" / "raw", n_train=60, n_test=60)
    path = tmp_path / "MNIST" / "raw" / broken
    path.write_bytes(path.read_bytes()[:n_kept])
    with pytest.raises(DataError, match=r"^expected whole files in .*MNIST/raw, got a broken one"):
        load_data("mnist", tmp_path)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match="unknown data set 'minst'; did you mean 'mnist'"):
        load_data("minst")


def test_a_failed_download_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        Path(self.raw_folder).mkdir(parents=True)
        (Path(self.raw_folder) / "train-images-idx3-ubyte").write_bytes(b"half")
        raise RuntimeError("Error downloading train-images:\nno network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", fail)
    with pytest.raises(
        DataError,
        match=r"^could not download the data set 'mnist' \(Error downloading train-images: no network\); "
        r"give --data DIR, a folder that holds MNIST/raw$",
    ):
        load_data("mnist")
    assert list((tmp_path / "dirprune").iterdir()) == []


def test_a_download_lands_whole_in_the_cache_folder_and_happens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(self: Any) -> None:
        calls.append(self.root)
        write_idx(Path(self.raw_folder), n_train=200)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    assert load_data("mnist").fingerprint() == load_data("mnist").fingerprint()
    assert len(calls) == 1
    assert [path.name for path in (tmp_path / "dirprune").iterdir()] == ["mnist"]


def make_numbers(**choices: Any) -> DataRoles:
    inputs, targets = torch.arange(40.0).reshape(40, 1), torch.arange(40.0).reshape(40, 1)
    return make_roles("numbers", inputs, targets, inputs.clone(), targets, **choices)


def test_a_function_gets_the_folder_and_the_settings_that_it_takes(tmp_path: Path) -> None:
    heard = {}

    def data(root: Path, seed: int, validation_from: str) -> DataRoles:
        heard.update(root=root, seed=seed, validation_from=validation_from)
        return make_numbers(seed=seed)

    roles = load_data(data, str(tmp_path), validation_from="test:0.5", seed=7)
    assert heard == {"root": tmp_path, "seed": 7, "validation_from": "test:0.5"}
    assert roles.fingerprint() == make_numbers(seed=7).fingerprint()


def test_a_function_that_takes_anything_gets_everything() -> None:
    roles = load_data(lambda root, **choices: make_numbers(**choices), train_limit=10)
    assert len(roles.train) == 10


def test_a_training_limit_that_a_function_cannot_take_is_not_ignored() -> None:
    def data(root: Path | None) -> DataRoles:
        return make_numbers()

    assert load_data(data).name == "numbers"
    with pytest.raises(
        DataError, match=r"expected the data function .*data to take train_limit \(--train-images\)"
    ):
        load_data(data, train_limit=10)


def test_a_function_that_returns_something_else_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected DataRoles from the data function .*, got a list"):
        load_data(lambda root: [1, 2])  # type: ignore[arg-type, return-value]


def test_mnist_itself_is_cut_into_balanced_disjoint_roles(mnist_root: Path) -> None:
    roles = load_data("mnist", mnist_root, validation_from="test:0.5")
    assert [len(split) for split in (roles.train, roles.calibration, roles.validation, roles.test)] == [
        60_000,
        5_000,
        5_000,
        5_000,
    ]
    assert torch.bincount(roles.calibration.targets).tolist() == [500] * 10
    difference = torch.bincount(roles.validation.targets) - torch.bincount(roles.test.targets)
    assert difference.abs().max() <= 1
    assert not set(roles.validation.indices.tolist()) & set(roles.test.indices.tolist())
    values = roles.train.inputs.double() / 255
    assert values.mean().item() == pytest.approx(roles.mean[0], abs=1e-4)
    assert values.std().item() == pytest.approx(roles.std[0], abs=1e-4)


def test_mnist_read_from_a_copy_has_the_same_fingerprint(mnist_root: Path, tmp_path: Path) -> None:
    shutil.copytree(mnist_root / "MNIST", tmp_path / "MNIST")
    first, second = (load_data("mnist", root, train_limit=1000) for root in (mnist_root, tmp_path))
    assert first.fingerprint() == second.fingerprint()

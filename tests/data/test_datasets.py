from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torchvision.transforms import PILToTensor

from dirprune.data import datasets, make_roles, read_dataset
from dirprune.errors import DataError


class _Pictures(Dataset[Any]):
    """Photographs with whole-number labels, as torchvision's data sets have them."""

    def __init__(self, sides: list[int], transform: Any = None) -> None:
        self.sides, self.transform = sides, transform

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        image = Image.new("RGB", (self.sides[place],) * 2, (place, 1, 2))
        return (image if self.transform is None else self.transform(image)), place % 3


class _Broken(_Pictures):
    def __getitem__(self, place: int) -> tuple[Any, int]:
        if place == 2:
            raise OSError("broken\nfile")
        return super().__getitem__(place)


class _Deadly(_Pictures):
    def __getitem__(self, place: int) -> tuple[Any, int]:
        os._exit(1)


class _Stream(IterableDataset[Any]):
    """A stream that says how long it is: each worker would yield the whole of it."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 3


class _Endless(Dataset[Any]):
    def __getitem__(self, place: int) -> Any:
        return torch.zeros(2), 1


class _TooLong(list):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return super().__len__() + 1


@pytest.mark.parametrize("n_workers", [0, 2])
def test_data_set_with_transforms_becomes_roles_with_its_images_and_labels_in_order(n_workers: int) -> None:
    inputs, targets = read_dataset(_Pictures([4] * 30, PILToTensor()), n_workers=n_workers)
    assert (inputs.dtype, inputs.shape) == (torch.uint8, (30, 3, 4, 4))
    assert inputs[:, 0, 0, 0].tolist() == list(range(30))
    assert (targets.dtype, targets.tolist()) == (torch.int64, [place % 3 for place in range(30)])
    roles = make_roles("pictures", inputs, targets, inputs[:9].clone(), targets[:9], n_classes=3)
    assert len(roles.train) + len(roles.validation) == 30


def test_targets_may_be_tensors_and_inputs_arrays_of_numpy() -> None:
    rows = [(np.full(3, place, np.float32), torch.tensor([1.5, place])) for place in range(4)]
    inputs, targets = read_dataset(rows)  # type: ignore[arg-type]  # a list is a map-style data set
    assert inputs.tolist() == [[place] * 3 for place in range(4)]
    assert targets.tolist() == [[1.5, place] for place in range(4)]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (_Stream(), "expected a map-style data set, with a length, got _Stream; try list"),
        (_Endless(), "expected a map-style data set, with a length, got _Endless; try list"),
        ([], "expected a data set with examples, got an empty list"),
        (
            _Pictures([4] * 3),
            r"expected inputs that are tensors, got Image in example 0; try .*PILToTensor\(\)",
        ),
        (
            _Pictures([4, 4, 5], PILToTensor()),
            r"each input to be like the first one, uint8 of shape \(3, 4, 4\), got uint8 of shape "
            r"\(3, 5, 5\) in example 2; try a transform that resizes",
        ),
        (_Broken([4] * 3, PILToTensor()), "expected example 2 to be readable, got OSError: broken file"),
        ([torch.zeros(2)], "expected pairs of an input and a target, got Tensor as example 0"),
        (
            TensorDataset(torch.zeros(3, 2)),
            "expected pairs of an input and a target, got 1 parts as example 0",
        ),
        ([(torch.zeros(2), "cat")], "expected targets that are numbers or tensors, got str in example 0"),
        (
            [(torch.zeros(2), 1), (torch.zeros(2), 0.5)],
            r"each target to be like the first one, int64 of shape \(\), got float32",
        ),
        (
            _TooLong([(torch.zeros(2), 1)] * 2),
            "expected example 2 to be readable, got IndexError",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_what_is_no_data_set_of_equal_pairs_is_one_clear_line(dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read_dataset(dataset)
    assert "\n" not in str(raised.value)


def test_what_a_worker_cannot_read_is_told_as_here_and_the_global_state_stays() -> None:
    before = torch.get_rng_state()
    for n_workers in (0, 2):
        with pytest.raises(DataError, match=r"^expected example 2 to be readable, got OSError: broken file$"):
            read_dataset(_Broken([4] * 3, PILToTensor()), n_workers=n_workers)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(DataError, match="expected n_workers of at least 0, got -1"):
        read_dataset(_Pictures([4] * 3, PILToTensor()), n_workers=-1)


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [0, 2])
def test_inputs_and_targets_that_a_layer_computes_come_without_gradients(n_workers: int) -> None:
    layer = torch.nn.Linear(2, 2)
    rows = [layer(torch.full((2,), float(place))) for place in range(3)]
    inputs, targets = read_dataset([(row, row.sum()) for row in rows], n_workers=n_workers)  # type: ignore[arg-type]
    assert not inputs.requires_grad
    assert not targets.requires_grad
    assert torch.equal(inputs, torch.stack(rows))
    assert torch.equal(targets, torch.stack(rows).sum(1))


class _Noted(torch.Tensor):
    """A tensor of a class of its own, to be had with attributes."""


@pytest.mark.parametrize("n_workers", [0, 1])
def test_what_cannot_be_pickled_is_one_line_or_left_behind(n_workers: int) -> None:
    with pytest.raises(DataError, match=r"^expected targets that are numbers or tensors, got [a-z]+ in e"):
        read_dataset([(torch.zeros(2), lambda: 1)], n_workers=n_workers)  # type: ignore[arg-type]
    noted = torch.ones(2).as_subclass(_Noted)
    noted.note = lambda: 1  # type: ignore[attr-defined]
    inputs, targets = read_dataset([(noted, noted)], n_workers=n_workers)  # type: ignore[arg-type]
    assert type(inputs) is type(targets) is torch.Tensor
    assert inputs.tolist() == targets.tolist() == [[1, 1]]


# Where a process is gone, the thread that feeds it may find its pipe closed: CPython's, which prints so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_process_that_dies_while_it_reads_is_one_line() -> None:
    with pytest.raises(DataError, match=r"^expected processes that read, got .*; try n_workers=0$") as raised:
        read_dataset(_Deadly([4] * 3, PILToTensor()), n_workers=1)
    assert "\n" not in str(raised.value)


def test_more_than_fits_is_refused_after_the_first_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "MAX_IN_MEMORY", 100)
    with pytest.raises(DataError, match="class folders, which are streamed"):
        read_dataset(_Broken([4] * 3, PILToTensor()))

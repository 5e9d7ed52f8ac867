"""Data sets of PyTorch, read into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_convert

from dirprune.data.photographs import MAX_IN_MEMORY
from dirprune.errors import DataError, one_line


def read_dataset(dataset: Dataset[Any], *, n_workers: int = 0) -> tuple[Tensor, Tensor]:
    """Read a map-style data set of PyTorch into memory, for `make_roles`.

    Every example is read once, in order. What its transforms draw at random is drawn once and for all; a
    recipe's augmentation (`Recipe`) is what a training draws anew.

    Args:
        dataset: Has a length, and pairs of an input, a tensor of always the same shape, and a target, a
            number or a tensor, likewise. Images as uint8 take a quarter of the memory of floats.
        n_workers: Processes that read; 0: this one.
    Returns:
        Inputs of shape (n, ...) and targets of shape (n, ...), each of the type of the first example.
    Raises:
        DataError: If the data set is a stream or has no examples, an example cannot be read, is no such pair
            or of another shape than the first, all inputs take more than 4 GiB, or a process dies.
    """
    if n_workers < 0:
        raise DataError(f"expected n_workers of at least 0, got {n_workers}")
    n_examples = _count(dataset)
    loader = DataLoader(
        _Told(dataset),
        batch_size=None,
        sampler=range(n_examples),
        num_workers=n_workers,
        generator=torch.Generator(),  # the global one must stay as it is
    )
    examples = _check_all(_read(loader))
    first_input, first_target = next(examples)
    n_bytes = n_examples * first_input.element_size() * first_input.numel()
    if n_bytes > MAX_IN_MEMORY:
        raise DataError(
            f"expected a data set of at most {MAX_IN_MEMORY / 2**30:g} GiB, got {n_bytes / 2**30:.1f} GiB in "
            f"{n_examples:,} examples; try images as uint8, or class folders, which are streamed"
        )
    inputs = first_input.new_empty((n_examples, *first_input.shape))
    targets = first_target.new_empty((n_examples, *first_target.shape))
    inputs[0], targets[0] = first_input, first_target
    for place, (one_input, one_target) in enumerate(examples, start=1):
        inputs[place], targets[place] = one_input, one_target
    return inputs, targets


class _Told(Dataset[Any]):
    """A data set that gives pairs of tensors, or tells why there is none, also out of another process.

    Anything else might not cross from there: what cannot be pickled is lost without an error, and the reader
    waits for it for ever.

    Args:
        dataset: A map-style one.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor] | DataError:
        try:
            example = default_convert(self.dataset[place])
        except Exception as error:  # whatever a user's data set raises
            return DataError(f"expected example {place} to be readable, got {one_line(error, has_type=True)}")
        try:
            return _check_pair(example, place)
        except DataError as error:
            return error


def _count(dataset: Dataset[Any]) -> int:
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"expected a map-style data set, with a length, got {type(dataset).__name__}; try list(dataset)"
        )
    n_examples = len(dataset)
    if n_examples == 0:
        raise DataError(f"expected a data set with examples, got an empty {type(dataset).__name__}")
    return n_examples


def _read(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield examples, or say that a process that reads them has died."""
    try:
        yield from loader
    except RuntimeError as error:
        raise DataError(
            f"expected processes that read, got {one_line(error, has_type=True)}; try n_workers=0"
        ) from error


def _check_all(examples: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield examples, all like the first one, and raise what is an error."""
    first: tuple[Tensor, Tensor] | None = None
    for place, example in enumerate(examples):
        if isinstance(example, DataError):
            raise example
        first = first or example
        for what, one, other in zip(("input", "target"), example, first, strict=True):
            if (one.shape, one.dtype) != (other.shape, other.dtype):
                raise DataError(
                    f"expected each {what} to be like the first one, {_describe(other)}, got "
                    f"{_describe(one)} in example {place}; try a transform that resizes or pads"
                )
        yield example


def _check_pair(example: Any, place: int) -> tuple[Tensor, Tensor]:
    """Return input and target as plain tensors without gradients and attributes."""
    if not isinstance(example, (tuple, list)) or len(example) != 2:
        found = f"{len(example)} parts" if isinstance(example, (tuple, list)) else type(example).__name__
        raise DataError(f"expected pairs of an input and a target, got {found} as example {place}")
    if not isinstance(example[0], Tensor):
        raise DataError(
            f"expected inputs that are tensors, got {type(example[0]).__name__} in example {place}; try a "
            "transform such as torchvision.transforms.PILToTensor()"
        )
    try:
        target = torch.as_tensor(example[1])
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"expected targets that are numbers or tensors, got {type(example[1]).__name__} in example "
            f"{place}"
        ) from error
    return example[0].detach().as_subclass(Tensor), target.detach().as_subclass(Tensor)


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

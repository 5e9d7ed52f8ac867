"""What computing on a device asks for: products in float32 proper, and running out of memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

SHORTAGES = (
    "allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""What errors say where memory ran out; the last three come of cuBLAS and cuDNN (before 9, and since), which
take theirs beside torch's."""


@contextlib.contextmanager
def exact_products(device: str | torch.device) -> Iterator[None]:
    """Keep a GPU from rounding the factors of float32 products to TF32, so that all engines agree."""
    if torch.device(device).type != "cuda":
        yield
        return
    matmul = torch.backends.cuda.matmul
    was_allowed, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        matmul.allow_tf32 = was_allowed


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, on the CPU or on a GPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in SHORTAGES)

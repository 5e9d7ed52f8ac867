"""What computing on a device asks for: products in float32 proper, and what to do without enough memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

SHORTAGES = (
    "allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""What errors say where memory ran out; the third is of more than can be addressed, the last three come of
cuBLAS and cuDNN (before 9, and since), which take theirs beside torch's."""
SHORTAGE_ERRORS = (RuntimeError, MemoryError)
"""Of which kinds such errors are: torch's, and those of Python and numpy."""

CONTROL_GROUPS = (
    (r"^0::/(.*)$", "", "memory.max", "memory.current", "inactive_file"),
    (
        r"^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:/(.*)$",
        "memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Of version 2 and 1: the line that names a process's own, their place, and the names of numbers in them."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the CPU or on a GPU."""
    is_by_kind = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    is_said = isinstance(error, SHORTAGE_ERRORS) and any(words in str(error) for words in SHORTAGES)
    return is_by_kind or is_said


@contextlib.contextmanager
def derivatives_off_device(n_bytes: int | None) -> Iterator[None]:
    """Keep in the machine's own memory what is saved for derivatives; it comes back where they are taken.

    Args:
        n_bytes: How much of it may be taken, what is saved twice counted twice; None: no bound.
    Raises:
        torch.OutOfMemoryError: Where something is saved for which there is no room.
    """
    n_taken = 0

    def move(tensor: Tensor) -> tuple[torch.device, Tensor]:
        nonlocal n_taken
        n_taken += tensor.nbytes
        if n_bytes is not None and n_taken > n_bytes:
            raise torch.OutOfMemoryError(f"out of memory: derivatives need more than {n_bytes} bytes")
        return tensor.device, tensor.to("cpu", copy=True)

    def fetch(moved: tuple[torch.device, Tensor]) -> Tensor:
        device, tensor = moved
        return tensor.to(device)

    with torch.autograd.graph.saved_tensors_hooks(move, fetch):
        yield


def read_free_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of the machine's own memory may be taken; None: nothing here says it.

    A tenth of all stays free: a little beyond, Ray and the system end processes rather than say that memory
    ran out. What control groups allow counts as well.

    Args:
        root: Where `proc` and `sys` lie, on Linux.
    """
    try:
        known = _read_numbers(root / "proc/meminfo")
        free = [1024 * (known["MemAvailable"] - known["MemTotal"] // 10)]
    except (OSError, KeyError):
        return None
    groups = ""
    with contextlib.suppress(OSError):  # a system without control groups
        groups = (root / "proc/self/cgroup").read_text()
    for pattern, place, *names in CONTROL_GROUPS:
        top = root / "sys/fs/cgroup" / place
        for own in re.findall(pattern, groups, re.MULTILINE):
            for group in (top / own, *(top / own).parents):
                with contextlib.suppress(OSError, ValueError):  # no such file, or "max" for no limit
                    limit, used = (int((group / name).read_text()) for name in names[:2])
                    unused = _read_numbers(group / "memory.stat").get(names[2], 0)  # goes where there is need
                    free.append(limit - limit // 10 - used + unused)
                if group == top:
                    break
    return max(0, min(free))


def _read_numbers(path: Path) -> dict[str, int]:
    """Return the number that follows each name in a file of the system."""
    return {name: int(n) for name, n in re.findall(r"^(\w+):?\s+(\d+)", path.read_text(), re.MULTILINE)}

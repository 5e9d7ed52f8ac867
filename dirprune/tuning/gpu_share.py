"""What a worker holds of GPUs by its resources: whether it computes on one, and how much of it is its own."""

from __future__ import annotations

import ray
import torch

CONTEXT_BYTES = 768 * 2**20
"""Of a card, what torch does not count of each process on it: CUDA's context, the libraries' kernels and
workspaces; and a part of what the driver of the study holds."""


def count_own_gpus() -> float:
    """Return how many GPUs, or which part of one, Ray gave to this worker."""
    return ray.get_runtime_context().get_assigned_resources().get("GPU", 0.0)


def choose_device(share: float) -> str:
    """Return where a worker that holds so much of a GPU computes: with none on the CPU, whatever it sees."""
    return "cuda" if share > 0 and torch.cuda.is_available() else "cpu"


def keep_to_share(share: float) -> None:
    """Let a worker that shares a GPU run out of memory itself, instead of the one beside it."""
    if torch.cuda.is_available() and 0 < share < 1:
        total = torch.cuda.get_device_properties("cuda").total_memory
        torch.cuda.set_per_process_memory_fraction(count_allowed_bytes(share, total) / total)


def count_allowed_bytes(share: float, total_bytes: int) -> int:
    """Return how much torch may allocate of a card: a share but for the context, half of the share at least.

    Args:
        share: Of the card, in (0, 1].
        total_bytes: The memory of the card.
    """
    whole = int(share * total_bytes)
    return max(whole - CONTEXT_BYTES, whole // 2)

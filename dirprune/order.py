"""In which order the images of an epoch are seen, and the seeds of all else that is random in a training."""

from __future__ import annotations

import torch

from dirprune.identity import digest


def draw_order(seed: int, epoch: int, n_images: int) -> torch.Tensor:
    """Draw the order of an epoch's images, shape (n_images,), int64; the same on every device."""
    generator = torch.Generator().manual_seed(derive_seed("order", seed, epoch))
    return torch.randperm(n_images, generator=generator)


def derive_seed(purpose: str, *parts: int) -> int:
    """Derive a seed for one purpose from whatever numbers decide it."""
    return int(digest(purpose, *parts)[:15], 16)

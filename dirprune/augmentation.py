"""Random shifts and mirrorings of images, a whole batch at once, on the device where the images are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dirprune.errors import ConfigurationError


def augment(images: Tensor, shift: int, flips: bool, generator: torch.Generator) -> Tensor:
    """Move each image by its own number of pixels, and mirror every second one, at random.

    What comes in from outside the image is 0, as with torchvision's `RandomCrop` after padding.

    Args:
        images: Shape (n, channels, height, width), as they are stored, before normalising.
        shift: Largest movement in pixels, up, down, left and right; 0: none.
        flips: Whether left and right are exchanged in half of the images.
        generator: Source of the random numbers, on the CPU, so that every device draws the same.

    Returns:
        The same shape and type, on the same device.

    Raises:
        ConfigurationError: If these are no images.
    """
    if images.ndim != 4:
        raise ConfigurationError(
            "expected images of shape (n, channels, height, width) to shift or flip, got "
            f"{tuple(images.shape)}; try a recipe with shift=0 and flips=False"
        )
    n, _, height, width = images.shape
    if shift > 0:
        corners = torch.randint(0, 2 * shift + 1, (2, n), generator=generator).to(images.device)
        padded = F.pad(images, (shift, shift, shift, shift))
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (n, c, rows, columns, h, w)
        images = windows[torch.arange(n, device=images.device), :, corners[0], corners[1]]
    if flips:
        is_flipped = (torch.rand(n, generator=generator) < 0.5).to(images.device)
        images = torch.where(is_flipped[:, None, None, None], images.flip(3), images)
    return images

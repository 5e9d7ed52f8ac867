"""Random changes of training images, a whole batch at once, on the device where the images are.

Random numbers are drawn on the CPU; they go to a GPU without waiting for it (`non_blocking`), so that it is
given the next step's work while it still computes the last one's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dirprune.errors import ConfigurationError

ELASTIC_SPACING = 7
"""Pixels between two points that an elastic distortion moves independently."""


@dataclass(frozen=True)
class Augmentation:
    """How training images differ from one pass to the next; each image gets random numbers of its own.

    Args:
        shift: Largest movement in whole pixels, up, down, left and right.
        flips: Whether left and right are exchanged in half of the images.
        rotation: Largest angle in degrees, either way, around the image's centre.
        scaling: Largest change of height and of width, each drawn alone, as a fraction in [0, 1).
        shear: Largest slant in degrees, either way: rows move sideways by their distance from the centre.
        elastic: Standard deviation in pixels by which points of a coarse grid move, up and down, left and
            right; what lies between them follows smoothly [Simard et al. 2003, section 2].
    """

    shift: int = 0
    flips: bool = False
    rotation: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0

    @property
    def is_none(self) -> bool:
        """Whether images stay as they are."""
        return self == Augmentation()

    @property
    def moves_whole_pixels(self) -> bool:
        """Whether each pixel of a result is a pixel of the image, or 0."""
        return not (self.rotation or self.scaling or self.shear or self.elastic)


@dataclass(frozen=True)
class Draws:
    """Where the random numbers of some images come from, which may be a part of a batch.

    Args:
        generator: On the CPU, so that every device draws the same.
        n_batch: Images of the whole batch: numbers are drawn for all of them, so that whoever has a part of
            it draws what the others do.
        places: Places of the images in the batch, shape (n,), int64; None: they are the batch.
    """

    generator: torch.Generator
    n_batch: int
    places: Tensor | None = None

    def take(self, numbers: Tensor, axis: int = 0) -> Tensor:
        """Return those of some numbers of the batch that belong to the images."""
        return numbers if self.places is None else numbers.index_select(axis, self.places)


def augment(images: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Change each image at random.

    What comes in from outside the image is 0, as with torchvision's `RandomCrop` after padding. All changes
    that end between pixels are one map of the plane, so that images are interpolated once.

    Args:
        images: Shape (n, channels, height, width), as they are stored, before normalising.
        augmentation: Which changes, and how large.
        draws: Source of the random numbers.

    Returns:
        The same shape and type, on the same device.

    Raises:
        ConfigurationError: If these are no images.
    """
    if images.ndim != 4:
        raise ConfigurationError(
            "expected images of shape (n, channels, height, width) to augment, got "
            f"{tuple(images.shape)}; try a recipe that augments nothing (shift=0, flips=False)"
        )
    if not augmentation.moves_whole_pixels:
        images = _warp(images, augmentation, draws)
    return _move(images, augmentation.shift, augmentation.flips, draws)


def _move(images: Tensor, shift: int, flips: bool, draws: Draws) -> Tensor:
    """Move and mirror each image: all are padded, and one gather takes every pixel from there.

    Where they are only mirrored, each is chosen between itself and its mirror image.
    """
    n, n_channels, height, width = images.shape
    device, generator = images.device, draws.generator
    corners = is_flipped = None
    if shift:
        drawn = torch.randint(0, 2 * shift + 1, (2, draws.n_batch, 1), generator=generator)
        corners = draws.take(drawn, axis=1).to(device, non_blocking=True)
    if flips:
        drawn = torch.rand(draws.n_batch, generator=generator) < 0.5
        is_flipped = draws.take(drawn).to(device, non_blocking=True)[:, None]
    if corners is None:
        if is_flipped is None:
            return images
        return torch.where(is_flipped[:, :, None, None], images.flip(3), images)
    columns = torch.arange(width, device=device)
    if is_flipped is not None:
        columns = torch.where(is_flipped, columns.flip(0), columns)
    columns = columns + corners[1]  # (n, width), in the padded image
    rows = torch.arange(height, device=device) + corners[0]
    padded = F.pad(images, (shift, shift, shift, shift)).flatten(2)
    places = (rows[:, :, None] * (width + 2 * shift) + columns[:, None, :]).flatten(1)
    return padded.gather(2, places[:, None].expand(n, n_channels, -1)).view(images.shape)


def _warp(images: Tensor, augmentation: Augmentation, draws: Draws) -> Tensor:
    """Rotate, scale, shear and distort each image in one interpolation."""
    n, _, height, width = images.shape
    maps = draws.take(_draw_linear_maps(draws.n_batch, height, width, augmentation, draws.generator))
    maps = maps.to(images.device, non_blocking=True)
    moved = None
    if augmentation.elastic > 0:
        moved = draws.take(_draw_movements(draws.n_batch, height, width, augmentation, draws.generator))
        moved = moved.to(images.device, non_blocking=True)
    if n == 0:
        return images
    grid = F.affine_grid(maps, [n, 1, height, width], align_corners=False)  # (n, height, width, 2)
    if moved is not None:
        grid = grid + _spread_movements(moved, height, width)
    is_whole = not images.is_floating_point()
    values = images.float() if is_whole else images
    warped = F.grid_sample(
        values, grid.to(values.dtype), mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return warped.round_().to(images.dtype) if is_whole else warped


def _draw_linear_maps(
    n: int, height: int, width: int, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Return where each pixel of a result comes from, as maps of [-1, 1] x [-1, 1], shape (n, 2, 3)."""
    angle, slant, across, down = 2 * torch.rand(4, n, generator=generator) - 1
    angle = angle * math.radians(augmentation.rotation)
    slant = (slant * math.radians(augmentation.shear)).tan()
    across, down = 1 + augmentation.scaling * across, 1 + augmentation.scaling * down
    cosine, sine = angle.cos(), angle.sin()
    # in pixels: rotation x [[1, slant], [0, 1]], then each axis by its own factor
    ratio = height / width
    rows = torch.stack([cosine / across, (cosine * slant - sine) * ratio / across, torch.zeros(n)], dim=1)
    columns = torch.stack([sine / ratio / down, (sine * slant + cosine) / down, torch.zeros(n)], dim=1)
    return torch.stack([rows, columns], dim=1)


def _draw_movements(
    n: int, height: int, width: int, augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Return by how many pixels the points of a coarse grid move, shape (n, 2, rows, columns)."""
    n_points = [math.ceil(size / ELASTIC_SPACING) + 1 for size in (height, width)]
    return torch.randn(n, 2, *n_points, generator=generator) * augmentation.elastic


def _spread_movements(moved: Tensor, height: int, width: int) -> Tensor:
    """Return smooth displacements in units of half an image, shape (n, height, width, 2)."""
    smooth = F.interpolate(moved, size=(height, width), mode="bicubic", align_corners=True)
    return torch.stack([smooth[:, 0] * (2 / width), smooth[:, 1] * (2 / height)], dim=3)

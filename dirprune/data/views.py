"""Random parts of images, resized: the same for a seed and an image, whoever draws them and when."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dirprune.errors import ConfigurationError

N_TRIES = 10
LOG_ASPECT = math.log(4 / 3)


@dataclass(frozen=True)
class RandomCrops:
    """Which part of each image is seen in one pass [Szegedy et al. 2015, section 6].

    A part has an area drawn evenly between `min_area` and all, and an aspect ratio drawn between 3:4 and 4:3,
    evenly in its logarithm; where ten draws do not fit into the image, it is the largest square in the
    middle. All follows from the seed and the image's place: it does not matter which process draws, or when.

    Attributes:
        min_area: Least share of the image's area, in (0, 1].
        seed: Of this pass; >= 0.
    """

    min_area: float
    seed: int

    def boxes(self, places: np.ndarray, height: int, width: int) -> np.ndarray:
        """Draw the parts of images of one size.

        Args:
            places: Of the images, shape (n,).
            height: Of each image, in pixels.
            width: Likewise.
        Returns:
            Left, top, right and bottom edge, in pixels and fractions of them, shape (n, 4), float64.
        """
        draws = _draw_uniform(self.seed, places, 2 * N_TRIES + 2)
        areas = (self.min_area + (1 - self.min_area) * draws[:, :N_TRIES]) * (height * width)
        aspects = np.exp((2 * draws[:, N_TRIES:-2] - 1) * LOG_ASPECT)
        widths, heights = np.sqrt(areas * aspects), np.sqrt(areas / aspects)
        fits = (widths <= width) & (heights <= height)
        first = fits.argmax(1)
        rows = np.arange(len(places))
        shorter = min(height, width)
        has_any = fits[rows, first]
        w = np.where(has_any, widths[rows, first], shorter)
        h = np.where(has_any, heights[rows, first], shorter)
        left = np.where(has_any, draws[:, -2], 0.5) * (width - w)
        top = np.where(has_any, draws[:, -1], 0.5) * (height - h)
        return np.stack([left, top, left + w, top + h], 1)

    def place(self, images: Tensor, places: Tensor) -> Tensor:
        """Return the parts of images in memory as `cut` takes them, on the device of the images.

        Drawing waits for all that a GPU has to do: once for many batches rather than for each.

        Args:
            images: Any of the set, which are of one size, shape (m, channels, height, width).
            places: Of the images to be cut, shape (n,).
        Returns:
            As of `boxes`, shape (n, 4), float32.
        Raises:
            ConfigurationError: If these are no images.
        """
        if images.ndim != 4:
            raise ConfigurationError(
                "expected images of shape (n, channels, height, width) to cut parts of, got "
                f"{tuple(images.shape)}; try a recipe with min_area=1"
            )
        boxes = self.boxes(places.cpu().numpy(), *images.shape[2:])
        return torch.from_numpy(boxes).float().to(images.device)


def cut(images: Tensor, boxes: Tensor) -> Tensor:
    """Return parts of images in memory, resized to the images' own size.

    Args:
        images: Shape (n, channels, height, width), uint8 or float32.
        boxes: The part of each, as `RandomCrops.place` gives them, shape (n, 4), on the same device.
    """
    height, width = images.shape[2:]
    left, top, right, bottom = boxes.unbind(1)
    zero = torch.zeros_like(left)
    affine = torch.stack(  # from the result's coordinates to the image's; both reach from -1 to 1
        [
            torch.stack([(right - left) / width, zero, (left + right) / width - 1], 1),
            torch.stack([zero, (bottom - top) / height, (top + bottom) / height - 1], 1),
        ],
        1,
    )
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    values = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return values if images.is_floating_point() else values.round_().to(images.dtype)


def _draw_uniform(seed: int, places: np.ndarray, n_draws: int) -> np.ndarray:
    """Draw numbers in [0, 1) that follow from seed and place alone, shape (n, n_draws), float64.

    Counters are scrambled by the last steps of SplitMix64 [Steele, Lea, Flood 2014], twice, the seed between.
    """
    counters = places.astype(np.uint64)[:, None] * np.uint64(n_draws) + np.arange(n_draws, dtype=np.uint64)
    mixed = _scramble(_scramble(counters + np.uint64(1)) ^ np.uint64(seed % 2**64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _scramble(values: np.ndarray) -> np.ndarray:
    values = values * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

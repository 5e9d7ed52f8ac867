"""One image from a file to 8-bit colour of one size."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from dirprune.data.views import RandomCrops
from dirprune.errors import DataError, one_line, printable

MAX_BROKEN = 0.01
"""Largest share of images that may be unreadable, beyond a single one; they are left out."""
N_NAMED = 3
"""Unreadable images that are named where they are too many."""
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""How names of images end: those of torchvision's `ImageFolder`, and .gif."""
BROKEN = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no whole images."""
OF_16_BITS = ("PNG", "PPM")
"""Formats that have no more, which Pillow may hold in 32."""
MAX_OF_8_BITS = 2**8 - 1
MAX_OF_16_BITS = 2**16 - 1


def decode(source: Path | BinaryIO, size: int | None, shorter: int | None = None) -> np.ndarray:
    """Decode one image; grey ones and palettes become colour, transparency is dropped.

    Args:
        source: An image file.
        size: Pixels of each side of the middle that is cut out; None: the image stays as it is.
        shorter: Pixels to which its shorter side is resized before; None: to `size`.
    Returns:
        Shape (3, height, width), uint8.
    Raises:
        OSError: Or another of `BROKEN` if it is no whole image.
    """
    with Image.open(source) as opened:
        image = _in_colour(opened)
        if size is not None and shorter is not None:
            image = _cut_middle(image, size, shorter)
        elif size is not None:
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        return _to_array(image)


def _cut_middle(image: Image.Image, size: int, shorter: int) -> Image.Image:
    """Return what torchvision's `Resize(shorter)` and `CenterCrop(size)` leave of an image."""
    width, height = (int(shorter * side / min(image.size)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def decode_crop(source: Path | BinaryIO, size: int, crops: RandomCrops, place: int) -> np.ndarray:
    """Decode a random part of one image, resized to a square; see `decode`.

    A JPEG file is decoded at an eighth, a quarter or half of its size where the part has pixels enough there.

    Args:
        source: An image file.
        size: Pixels of each side.
        crops: Which part.
        place: The image's place, for `crops`.
    """
    with Image.open(source) as opened:
        width, height = opened.size
        left, top, right, bottom = crops.boxes(np.array([place]), height, width)[0]
        wanted = (int(width * size / (right - left)) + 1, int(height * size / (bottom - top)) + 1)
        opened.draft("RGB", wanted)
        x, y = opened.size[0] / width, opened.size[1] / height
        box = (left * x, top * y, right * x, bottom * y)
        image = _in_colour(opened).resize((size, size), Image.Resampling.BILINEAR, box)
        return _to_array(image)


def count_bearable(n_images: int) -> float:
    """Return how many of some images may be unreadable."""
    return max(1.0, MAX_BROKEN * n_images)


def describe_broken(name: str, error: Exception, source: object) -> str:
    """Return which image cannot be read and why, without the source, which Pillow and the system repeat."""
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{name}: {error.strerror}")
    repeated = repr(str(source) if isinstance(source, Path) else source)
    return printable(f"{name}: {one_line(error).replace(f' {repeated}', '')}")


def refuse_broken(reasons: Sequence[str], n_images: int) -> DataError:
    """Return the error of too many images that cannot be read, from what is wrong with each."""
    more = f"; and {len(reasons) - N_NAMED} more" if len(reasons) > N_NAMED else ""
    return DataError(
        f"expected whole images, got {len(reasons)} of {n_images} that cannot be read: "
        f"{'; '.join(reasons[:N_NAMED])}{more}"
    )


def _to_array(image: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def _in_colour(image: Image.Image) -> Image.Image:
    """Return an image in 8-bit colour; of 16 bits the upper 8 count, which Pillow itself would clip.

    Numbers of 32 bits count as 16 where one of them is above 255 and all fit. Where none is, nothing says
    whether 200 is bright or as good as black, as it would be of 16 bits.

    Raises:
        ValueError: If nobody knows the range of the numbers that are its pixels.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range nobody knows")
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    pixels = np.asarray(image).astype(np.int64)
    if image.mode == "I" and image.format not in OF_16_BITS:
        least, most = int(pixels.min()), int(pixels.max())
        if least < 0 or not MAX_OF_8_BITS < most <= MAX_OF_16_BITS:
            raise ValueError(f"its pixels are whole numbers in {least}..{most}, whose range nobody knows")
    return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")

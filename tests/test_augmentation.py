"""Random shifts and mirrorings: every result is the image itself, moved, with 0 beyond its border."""

import pytest
import torch

from dirprune.augmentation import augment
from dirprune.errors import ConfigurationError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Return one image moved pixel by pixel."""
    result = torch.zeros_like(image)
    _, height, width = image.shape
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


@pytest.mark.parametrize("shift", [1, 2])
def test_each_image_is_moved_by_its_own_number_of_pixels(shift):
    images = torch.randint(1, 256, (200, 3, 5, 6), dtype=torch.uint8)
    seen = set()
    for image, result in zip(images, augment(images, shift, False, generator()), strict=True):
        matches = [
            (down, right)
            for down in range(-shift, shift + 1)
            for right in range(-shift, shift + 1)
            if torch.equal(result, moved(image, down, right))
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == (2 * shift + 1) ** 2


def test_half_of_the_images_are_mirrored():
    images = torch.randint(0, 256, (400, 1, 4, 5), dtype=torch.uint8)
    results = augment(images, 0, True, generator())
    mirrored = [torch.equal(r, i.flip(2)) for r, i in zip(results, images, strict=True)]
    unchanged = [torch.equal(r, i) for r, i in zip(results, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, unchanged, strict=True))
    assert 150 < sum(mirrored) < 250


def test_same_generator_gives_the_same_and_the_images_stay_as_they_are():
    images = torch.rand(50, 3, 8, 8)
    before = images.clone()
    first, second = (augment(images, 2, True, generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, 2, True, generator(4)))
    assert torch.equal(images, before)


def test_what_is_no_image_is_refused():
    with pytest.raises(ConfigurationError, match=r"got \(8, 5\); try a recipe with shift=0"):
        augment(torch.rand(8, 5), 1, False, generator())

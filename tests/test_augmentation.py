"""Random shifts and mirrorings move whole pixels; rotation and its like move what is seen as they say."""

import pytest
import torch

from dirprune.augmentation import Augmentation, Draws, augment
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
    for image, result in zip(
        images, augment(images, Augmentation(shift), Draws(generator(), len(images))), strict=True
    ):
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
    results = augment(images, Augmentation(flips=True), Draws(generator(), len(images)))
    mirrored = [torch.equal(r, i.flip(2)) for r, i in zip(results, images, strict=True)]
    unchanged = [torch.equal(r, i) for r, i in zip(results, images, strict=True)]
    assert all(a != b for a, b in zip(mirrored, unchanged, strict=True))
    assert 150 < sum(mirrored) < 250


EVERYTHING = Augmentation(shift=2, flips=True, rotation=20, scaling=0.2, shear=10, elastic=0.5)


@pytest.mark.parametrize("augmentation", [Augmentation(shift=2, flips=True), EVERYTHING])
def test_same_generator_gives_the_same_and_the_images_stay_as_they_are(augmentation):
    images = torch.rand(50, 3, 8, 8)
    before = images.clone()
    first, second = (augment(images, augmentation, Draws(generator(3), len(images))) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, augmentation, Draws(generator(4), len(images))))
    assert torch.equal(images, before)


def test_what_is_no_image_is_refused():
    with pytest.raises(ConfigurationError, match=r"got \(8, 5\); try a recipe that augments nothing"):
        augment(torch.rand(8, 5), Augmentation(shift=1), Draws(generator(), 8))


def disc(down: float, right: float, height: int = 41, width: int = 41) -> torch.Tensor:
    """Return an image of a small bright disc whose centre is so far from the image's, in pixels."""
    rows = torch.arange(height)[:, None] - (height - 1) / 2 - down
    columns = torch.arange(width)[None] - (width - 1) / 2 - right
    return torch.exp(-(rows**2 + columns**2) / 8)[None]


def centres(images: torch.Tensor) -> torch.Tensor:
    """Return how far each image's centre of mass is from its centre: down, right; shape (n, 2)."""
    _, _, height, width = images.shape
    mass = images.sum((1, 2, 3))
    rows = torch.arange(height) - (height - 1) / 2
    columns = torch.arange(width) - (width - 1) / 2
    down = (images.sum((1, 3)) * rows).sum(1) / mass
    return torch.stack([down, (images.sum((1, 2)) * columns).sum(1) / mass], dim=1)


def test_rotation_turns_around_the_centre_up_to_its_angle_in_images_of_any_shape():
    images = disc(0, 12, height=41, width=61).expand(300, 1, 41, 61)
    moved = centres(augment(images, Augmentation(rotation=30), Draws(generator(), len(images))))
    assert moved.norm(dim=1).numpy() == pytest.approx(12, abs=0.1)
    angles = torch.atan2(moved[:, 0], moved[:, 1]).rad2deg()
    assert 27 < angles.max() <= 30.2
    assert -30.2 <= angles.min() < -27


def test_scaling_moves_outwards_and_inwards_by_its_fraction_each_axis_alone():
    images = disc(10, 10).expand(300, 1, 41, 41)
    moved = centres(augment(images, Augmentation(scaling=0.2), Draws(generator(), len(images)))) / 10
    assert moved.min() == pytest.approx(0.8, abs=0.02)
    assert moved.max() == pytest.approx(1.2, abs=0.02)
    assert abs(torch.corrcoef(moved.T)[0, 1]) < 0.2


def test_shear_moves_rows_sideways_by_their_distance_from_the_centre():
    images = disc(10, 0).expand(300, 1, 41, 41)
    moved = centres(augment(images, Augmentation(shear=30), Draws(generator(), len(images))))
    assert moved[:, 0].numpy() == pytest.approx(10, abs=0.1)
    assert moved[:, 1].abs().max() == pytest.approx(10 * 3**-0.5, abs=0.2)


def test_elastic_distortion_moves_by_its_standard_deviation_and_smoothly():
    images = torch.cat([disc(0, 0), disc(0, 3), disc(0, 14)])[None].expand(400, 3, 41, 41)
    moved = augment(images, Augmentation(elastic=1.0), Draws(generator(), len(images)))
    here, near, far = (centres(moved[:, channel : channel + 1])[:, 1] for channel in range(3))
    assert here.std() == pytest.approx(0.8, abs=0.3)
    assert abs(here.mean()) < 0.15
    assert torch.corrcoef(torch.stack([here, near]))[0, 1] > 0.7
    assert abs(torch.corrcoef(torch.stack([here, far]))[0, 1]) < 0.3


def test_images_in_whole_numbers_stay_so_and_an_image_without_change_stays_as_it_is():
    images = torch.randint(0, 256, (20, 3, 9, 12), dtype=torch.uint8)
    assert augment(images, EVERYTHING, Draws(generator(), len(images))).dtype == torch.uint8
    assert torch.equal(augment(images, Augmentation(rotation=1e-6), Draws(generator(), len(images))), images)


@pytest.mark.parametrize("augmentation", [Augmentation(shift=2, flips=True), EVERYTHING])
@pytest.mark.parametrize("places", [[0, 1, 2], [5, 3], []])
def test_a_part_of_a_batch_is_changed_as_in_the_whole(augmentation, places):
    images = torch.rand(6, 3, 8, 8)
    generators = [generator(), generator()]
    whole = augment(images, augmentation, Draws(generators[0], 6))
    chosen = torch.tensor(places, dtype=torch.int64)
    part = augment(images[chosen], augmentation, Draws(generators[1], 6, chosen))
    assert torch.equal(part, whole[chosen])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())

"""Random parts of images: within them, of the areas asked for, and the same wherever they are cut."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode

from dirprune.data.images import decode_crop
from dirprune.data.split import Split
from dirprune.data.views import RandomCrops, cut
from dirprune.errors import ConfigurationError


@pytest.mark.parametrize(("height", "width", "largest"), [(50, 50, 0.9), (30, 90, 0.42), (200, 60, 0.38)])
def test_parts_lie_within_the_image_and_have_the_areas_asked_for(
    height: int, width: int, largest: float
) -> None:
    left, top, right, bottom = RandomCrops(0.25, 3).boxes(np.arange(4000), height, width).T
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= width
    assert bottom.max() <= height
    areas = (right - left) * (bottom - top) / (height * width)
    assert areas.min() >= 0.25 - 1e-9
    assert areas.max() > largest
    aspects = np.log((right - left) / (bottom - top))
    assert np.abs(aspects).max() <= math.log(4 / 3) + 1e-9


def test_areas_and_places_are_spread_evenly() -> None:
    left, top, right, bottom = RandomCrops(0.08, 0).boxes(np.arange(20_000), 1000, 1000).T
    shares = left / (1000 - (right - left))
    assert np.histogram(shares, 10, (0, 1))[0] == pytest.approx(2000, abs=200)
    small = (right - left) < 500
    assert 0.1 < small.mean() < 0.4
    assert bottom.std() > 100
    assert abs(np.log((right - left) / (bottom - top)).mean()) < 0.01


def test_where_no_draw_fits_the_middle_is_taken() -> None:
    boxes = RandomCrops(1.0, 0).boxes(np.arange(50), 10, 40)
    assert boxes.tolist() == [[15, 0, 25, 10]] * 50


def test_seed_and_place_decide_alone() -> None:
    crops = RandomCrops(0.3, 7)
    whole = crops.boxes(np.arange(100), 64, 48)
    assert np.array_equal(crops.boxes(np.array([41]), 64, 48)[0], whole[41])
    assert not np.isclose(RandomCrops(0.3, 8).boxes(np.arange(100), 64, 48), whole).all(1).any()
    assert len(np.unique(whole[:, 0])) == 100


def test_what_is_no_image_is_refused() -> None:
    message = r"^expected images of shape .* got \(4, 5\); try a recipe with min_area=1$"
    with pytest.raises(ConfigurationError, match=message):
        RandomCrops(0.5, 0).place(torch.zeros(4, 5), torch.arange(4))


def test_parts_in_memory_are_those_that_are_decoded() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    image = torch.stack([rows * 3, columns * 3, 128 + rows - columns]).to(torch.uint8)
    crops = RandomCrops(0.6, 11)
    places = torch.arange(20)
    images = image.expand(20, 3, 64, 64)
    parts = cut(images, crops.place(images, places))
    assert parts.dtype == torch.uint8
    for place in places.tolist():
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "png")
        decoded = torch.from_numpy(decode_crop(file, 64, crops, place))
        difference = (decoded.int() - parts[place].int()).abs()[:, 2:-2, 2:-2]
        assert difference.max() <= 2


class Noting(TorchFunctionMode):
    """Notes which functions of torch are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


def test_no_batch_of_parts_waits_for_a_copy_between_devices() -> None:
    images = torch.rand(12, 3, 16, 16)
    split = Split(images, torch.zeros(12), torch.arange(100, 112), "train")
    order, crops = torch.randperm(12), RandomCrops(0.3, 5)
    batches = split.batches(order.split(5), crops)
    seen = [next(batches).inputs]
    with Noting() as noted:
        seen += [batch.inputs for batch in batches]
    assert "grid_sample" in noted.names
    assert not noted.names & {"cpu", "numpy", "to", "item", "tolist"}
    alone = [next(split.batches([place[None]], crops)).inputs for place in order]
    torch.testing.assert_close(torch.cat(seen), torch.cat(alone))


def test_a_large_jpeg_file_gives_the_part_that_its_pixels_show() -> None:
    rows, columns = np.mgrid[0:800, 0:1000]
    pixels = np.stack([rows / 4, columns / 5, np.full_like(rows, 90)], 2).astype(np.uint8)
    files = [io.BytesIO(), io.BytesIO()]
    Image.fromarray(pixels).save(files[0], "jpeg", quality=95)
    Image.fromarray(pixels).save(files[1], "png")
    for place in range(10):
        jpeg, png = (decode_crop(file, 64, RandomCrops(0.5, 2), place).astype(int) for file in files)
        assert np.abs(jpeg - png).mean() < 2

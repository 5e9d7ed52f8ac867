from __future__ import annotations

import math
from typing import Any

import pytest

from dirprune.errors import ConfigurationError
from dirprune.recipe import Recipe


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": -1}, r"^images must be a whole number >= 0, got -1; "),
        ({"images": 2.5}, r"^images must be a whole number >= 0, got 2\.5; "),
        ({"images": True}, r"^images must be a whole number >= 0, got True; "),
        ({"batch_size": 0}, r"^batch_size must be a whole number >= 1, got 0; "),
        ({"lr": 0.0}, r"^lr must be > 0, got 0\.0; 0\.004 suits adamw"),
        ({"lr": math.nan}, r"^lr must be a finite number, got nan$"),
        ({"lr": "fast"}, r"^lr must be a finite number, got 'fast'$"),
        ({"patience": 0}, r"^patience must be a whole number >= 1, got 0; use None"),
        ({"distillation": 50}, r"^distillation must be in \[0, 1\], got 50; half the loss is 0\.5$"),
        ({"temperature": 0}, r"^temperature must be > 0, got 0; "),
        ({"momentum": 1.0}, r"^momentum must be in \[0, 1\), got 1\.0; "),
        ({"warmup": 1.0}, r"^warmup must be in \[0, 1\), got 1\.0; a tenth of the training is 0\.1$"),
        ({"clip_norm": 0.0}, r"^clip_norm must be > 0, got 0\.0; 1 is usual"),
        ({"clip_norm": "1"}, r"^clip_norm must be a finite number, got '1'$"),
        ({"label_smoothing": 1}, r"^label_smoothing must be in \[0, 1\), got 1; 0\.1 is usual"),
        ({"rotation": 270.0}, r"^rotation must be in \[0, 180\], got 270\.0; degrees"),
        ({"scaling": 1.1}, r"^scaling must be in \[0, 1\), got 1\.1; "),
        ({"shear": 90}, r"^shear must be in \[0, 90\), got 90; degrees"),
        ({"elastic": -1.0}, r"^elastic must be >= 0, got -1\.0; pixels"),
        ({"weight_decay": -0.1}, r"^weight_decay must be >= 0, got -0\.1; "),
        ({"channels_last": "no"}, r"^channels_last must be True or False, got 'no'; "),
        ({"optimizer": "adam"}, r"^unknown optimizer 'adam'; did you mean 'adamw'\? known: adamw, sgd$"),
        ({"precision": "bf16"}, r"^unknown precision 'bf16'; did you mean 'bfloat16'\? known: auto, "),
        ({"monitor_direction": "max"}, r"^unknown monitor_direction 'max'; did you mean 'maximize'\?"),
    ],
)
def test_value_outside_its_range_is_refused_with_a_hint(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Recipe(**{"images": 10, **wrong})


def test_no_images_are_allowed() -> None:
    assert Recipe(images=0).images == 0


def test_learning_rate_is_a_cosine_over_the_images() -> None:
    recipe = Recipe(images=1000, lr=0.4)
    assert [recipe.lr_at(images) for images in (0, 500, 1000)] == pytest.approx([0.4, 0.2, 0.0])
    assert recipe.lr_at(250) == pytest.approx(0.4 * (1 + math.sqrt(0.5)) / 2)


def test_learning_rate_rises_in_a_line_before_it_falls() -> None:
    recipe = Recipe(images=1000, batch_size=50, lr=0.4, warmup=0.2)
    assert [recipe.lr_at(images) for images in (0, 50, 150)] == pytest.approx([0.1, 0.2, 0.4])
    assert [recipe.lr_at(images) for images in (200, 600, 1000)] == pytest.approx([0.4, 0.2, 0.0])
    assert max(recipe.lr_at(images) for images in range(1000)) <= 0.4

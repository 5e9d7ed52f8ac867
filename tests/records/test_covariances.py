"""Pictures of covariances: whole files, colours centred at zero, and what is said of the seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dirprune.importance.simplex.covariances import Agreement, GroupCovariances, Null
from dirprune.records.covariances import (
    PART,
    choose_limit,
    format_agreement,
    order_by_similarity,
    wrap_caption,
    write_covariances_png,
)

PNG = b"\x89PNG\r\n\x1a\n"


def make_covariances(n_seeds: int, n_channels: int) -> GroupCovariances:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(n_seeds, 500, n_channels, generator=draws, dtype=torch.float64)
    samples = logits.softmax(2)
    return GroupCovariances(samples.mean(1), torch.stack([one.T.cov() for one in samples.unbind()]))


@pytest.mark.parametrize(("n_seeds", "n_channels"), [(1, 5), (3, 30), (2, 2)])
def test_picture_is_written_whole(tmp_path: Path, n_seeds: int, n_channels: int) -> None:
    path = tmp_path / "deep" / "pairs.png"
    write_covariances_png(path, make_covariances(n_seeds, n_channels), range(n_seeds), "costs $5 and $6")
    assert path.read_bytes().startswith(PNG)
    assert [found.name for found in path.parent.iterdir()] == ["pairs.png"]


def test_picture_of_one_channel_says_that_there_are_no_pairs(tmp_path: Path) -> None:
    alone = GroupCovariances(torch.ones(2, 1).double(), torch.zeros(2, 1, 1).double())
    write_covariances_png(tmp_path / "alone.png", alone, [0, 1], "alone")
    assert (tmp_path / "alone.png").read_bytes().startswith(PNG)


def test_colours_reach_as_far_as_the_strongest_pair_of_either_sign_and_leave_out_the_diagonal() -> None:
    first = torch.tensor([[1.0, 0.2], [0.2, 1.0]])
    second = torch.tensor([[0.5, -0.4], [-0.4, 0.5]])
    assert choose_limit([first, second]) == pytest.approx(0.4)
    assert choose_limit([torch.eye(3)]) == 0.01


def test_agreement_is_told_beside_the_null() -> None:
    null = Null((0.25, None, -0.05), (2, 0, 1))
    told = format_agreement(Agreement(0.25, 4950, (12, 7), 3, null))
    beside = (
        "4,950 pairs; positive by seed: 12, 7; positive in every seed: 3 "
        "(without interactions 1.0, 0 to 2 in 3 draws); "
        "mean rank correlation of the excess from one seed to another: "
    )
    low = "0.25 (without interactions 0.10, -0.05 to 0.25 in 2 draws)"
    assert told == f"{beside}{low}; no more than without interactions, so it proves none"
    high = "0.26 (without interactions 0.10, -0.05 to 0.25 in 2 draws)"
    assert format_agreement(Agreement(0.26, 4950, (12, 7), 3, null)) == beside + high
    assert format_agreement(Agreement(None, 3, (0,), 0)) == (
        "3 pairs; positive by seed: 0; one seed confirms nothing"
    )
    assert format_agreement(Agreement(None, 3, (0, 0), 0)).endswith("to another: none")
    assert "positive in every image part: 0" in format_agreement(Agreement(None, 3, (0, 0), 0), PART)


def test_caption_has_lines_that_the_picture_has_room_for() -> None:
    null = Null((-0.25, -0.05), (2, 0))
    told = format_agreement(Agreement(-0.25, 4950, (12, 7, 9), 3, null), PART)
    lines = wrap_caption(told).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 200
    assert " ".join(lines) == told


def test_agreement_without_a_null_is_said_to_prove_nothing() -> None:
    assert format_agreement(Agreement(0.9, 3, (1, 1), 1)).endswith(
        "from one seed to another: 0.90; without interactions not drawn, so it proves none"
    )


def test_channels_that_are_alike_become_neighbours() -> None:
    blocks = torch.block_diag(torch.ones(3, 3), -torch.ones(3, 3))
    mixed = [0, 3, 1, 4, 2, 5]
    order = order_by_similarity(blocks[mixed][:, mixed])
    assert [{mixed[place] for place in order[:3]}, {mixed[place] for place in order[3:]}] in (
        [{0, 1, 2}, {3, 4, 5}],
        [{3, 4, 5}, {0, 1, 2}],
    )
    assert order_by_similarity(torch.eye(1)) == [0]

"""What a trial does with GPUs follows from what it holds by its resources, not from what it sees."""

from __future__ import annotations

import pytest
import torch

from dirprune.tuning.gpu_share import choose_device, count_allowed_bytes


@pytest.mark.parametrize(("share", "device"), [(0.0, "cpu"), (0.25, "cuda"), (1.0, "cuda")])
def test_a_trial_computes_on_a_gpu_only_where_it_holds_some_of_one(
    monkeypatch: pytest.MonkeyPatch, share: float, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(share) == device


def test_a_gpu_of_ray_that_torch_cannot_use_leaves_a_trial_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(1.0) == "cpu"


@pytest.mark.parametrize(
    ("share", "total_mb", "allowed_mb"),
    [(0.25, 81920, 20480 - 768), (0.5, 8192, 4096 - 768), (0.125, 8192, 512), (0.0625, 8192, 256)],
)
def test_a_share_leaves_room_for_the_context_and_is_never_less_than_half(
    share: float, total_mb: int, allowed_mb: int
) -> None:
    assert count_allowed_bytes(share, total_mb * 2**20) == allowed_mb * 2**20

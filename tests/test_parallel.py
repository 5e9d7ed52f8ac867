"""How workers that train one network together exchange what they compute."""

from __future__ import annotations

import pytest
import torch

from dirprune.parallel import choose_backend


@pytest.mark.parametrize(
    ("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl"), (torch.device("cuda:1"), "nccl")]
)
def test_workers_on_cpus_exchange_by_gloo_whatever_gpus_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, device: str | torch.device, backend: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_backend(device) == backend

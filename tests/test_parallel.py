"""How workers that train one network together exchange what they compute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dirprune.errors import ConfigurationError
from dirprune.parallel import choose_backend, norms_synchronised


@pytest.mark.parametrize(
    ("device", "backend"), [("cpu", "gloo"), ("cuda", "nccl"), (torch.device("cuda:1"), "nccl")]
)
def test_workers_on_cpus_exchange_by_gloo_whatever_gpus_the_machine_has(
    monkeypatch: pytest.MonkeyPatch, device: str | torch.device, backend: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_backend(device) == backend


@pytest.fixture
def _alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("_alone")
def test_a_batch_norm_that_activates_does_so_among_workers_too() -> None:
    norm_act = pytest.importorskip("timm.layers.norm_act")
    inputs = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    network, expected = (norm_act.BatchNormAct2d(3, act_layer=nn.SiLU) for _ in range(2))
    with norms_synchronised(network):
        outputs = network(inputs)
        assert torch.equal(network.eval()(inputs), network.act(nn.BatchNorm2d.forward(network, inputs)))
    torch.testing.assert_close(outputs, expected(inputs))
    torch.testing.assert_close(network.running_var, expected.running_var)


class Doubling(nn.BatchNorm2d):
    """A batch norm with a forward that nobody knows."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * super().forward(inputs)


def test_a_batch_norm_with_a_forward_of_its_own_is_refused_among_workers() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), Doubling(3))
    with (
        pytest.raises(
            ConfigurationError, match=r"got tests\.test_parallel\.Doubling with a forward of its own"
        ),
        norms_synchronised(network),
    ):
        pass
    assert not any("forward" in vars(module) for module in network)

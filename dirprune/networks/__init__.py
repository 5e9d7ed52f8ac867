"""Networks by name, and reading and writing their weights without ever running code from a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from dirprune.device import is_out_of_memory
from dirprune.errors import ConfigurationError, DirpruneError, find_place, one_line, suggest
from dirprune.networks.lenet import LeNet5
from dirprune.networks.libraries import LIBRARIES, as_file_name, create_from_library, is_of_a_library
from dirprune.networks.resnet_cifar import RESNETS, ResNetCifar
from dirprune.networks.vgg import VGG16
from dirprune.networks.weights import load_weights_, read_state_dict, save_weights
from dirprune.networks.wide_resnet import WideResNet
from dirprune.preemption import Preempted

__all__ = [
    "NETWORKS",
    "VGG16",
    "LeNet5",
    "ResNetCifar",
    "WideResNet",
    "as_file_name",
    "create_network",
    "is_known",
    "is_of_a_library",
    "load_weights_",
    "read_state_dict",
    "save_weights",
    "with_classes",
]

N_CLASSES = 10  # of our own networks, unless they are told otherwise

NETWORKS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"lenet5": LeNet5, **RESNETS, "vgg16": VGG16, "wrn28_10": WideResNet}
)


def is_known(name: str) -> bool:
    """Return whether it is a network of `NETWORKS`, or named as one of a library; no FILE.py:NAME is."""
    return name in NETWORKS or (is_of_a_library(name) and ":" not in name)


def with_classes(
    network: str | Callable[..., nn.Module], options: Mapping[str, Any], n_classes: int | None
) -> dict[str, Any]:
    """Return the options of a network with as many outputs as there are classes, unless they say how many.

    Args:
        network: As `create_network` takes it; only a name is told, a function knows by itself.
        options: Keyword arguments of the network.
        n_classes: Of the data; None: they have none.
    """
    if n_classes is None or not isinstance(network, str) or "n_classes" in options:
        return dict(options)
    is_usual = n_classes == N_CLASSES and not is_of_a_library(network)
    return dict(options) if is_usual else {**options, "n_classes": n_classes}


def create_network(
    network: str | Callable[..., nn.Module],
    options: Mapping[str, Any] | None = None,
    *,
    seed: int | None = None,
) -> nn.Module:
    """Build a network from a known name or from the caller's own function.

    Args:
        network: A name of `NETWORKS`, `torchvision/<name>`, `timm/<name>` where timm is installed, or a
            callable that returns a `torch.nn.Module`.
        options: Keyword arguments of the network.
        seed: Seed of the initial weights on the CPU; None draws them from torch's global generator. With a
            seed the state of the global generator is left as it was.
    Raises:
        ConfigurationError: If the name or an option is unknown, or the callable fails or returns anything
            else.
    """
    chosen = dict(options or {})
    build: Callable[..., nn.Module]
    if isinstance(network, str) and is_of_a_library(network):
        build, chosen = create_from_library, {"name": network, "options": chosen}
    elif isinstance(network, str):
        if network not in NETWORKS:
            raise ConfigurationError(
                f"unknown network {network!r}{suggest(network, NETWORKS)}, and <library>/<name> of "
                f"{' or '.join(LIBRARIES)}"
            )
        build = NETWORKS[network]
        known = list(inspect.signature(build).parameters)
        for name in chosen:
            if name not in known:
                raise ConfigurationError(
                    f"unknown option {name!r} of network {network!r}{suggest(name, known)}"
                )
    elif isinstance(network, nn.Module) or not callable(network):
        raise ConfigurationError(
            f"expected a function that returns a network, got an object of {type(network).__name__}; "
            "give what makes it, such as its class"
        )
    else:
        build = network
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        built = build(**chosen) if isinstance(network, str) else _call(build, chosen)
    if not isinstance(built, nn.Module):
        raise ConfigurationError(
            f"expected a network function that returns a torch.nn.Module, got a {type(built).__name__}"
        )
    return built


def _call(build: Callable[..., nn.Module], options: Mapping[str, Any]) -> nn.Module:
    """Return what a user's function gives, or say where in their file it fails."""
    try:
        return build(**options)
    except (DirpruneError, Preempted):
        raise
    except (Exception, SystemExit) as error:  # whatever it raises
        if is_out_of_memory(error):
            raise
        name = getattr(build, "__qualname__", type(build).__qualname__)
        raise ConfigurationError(
            f"the network function {name} fails{find_place(error, build)}: {one_line(error, has_type=True)}"
        ) from error

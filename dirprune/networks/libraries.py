"""Networks of torchvision and timm by name, with fresh weights: torchvision/resnet50, timm/resnet26d."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dirprune.errors import ConfigurationError, one_line, suggest

LIBRARIES = ("torchvision", "timm")
OPTIONS = {"n_classes": "num_classes", "in_channels": "in_chans"}
"""Our names of options by theirs."""
WITH_AUXILIARY_OUTPUTS = ("googlenet", "inception_v3")


def is_of_a_library(name: str) -> bool:
    """Return whether a network's name begins with that of a library."""
    return name.partition("/")[0] in LIBRARIES and "/" in name


def as_file_name(name: str) -> str:
    """Return a network's name without the slash of a library, and FILE.py:NAME as FILE-NAME."""
    return name.replace("/", "-").replace(".py:", "-").replace(":", "-")


def create_from_library(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a network of a library, with fresh weights.

    Args:
        name: "torchvision/" or "timm/" and the name that the network has there.
        options: Arguments of the library's own function; `n_classes` is `num_classes` there, and with timm
            `in_channels` is `in_chans`.
    Raises:
        ConfigurationError: If the library is not installed or has no such network or option.
    """
    library, _, theirs = name.partition("/")
    given = {OPTIONS.get(option, option): value for option, value in options.items()}
    known = _list_networks(library)
    # timm takes the name of published weights behind a dot, which the network itself does not depend on
    bare = theirs.partition(".")[0] if library == "timm" else theirs
    if bare not in known:
        raise ConfigurationError(f"unknown network {name!r}{suggest(theirs, known)}")
    try:
        if library == "timm":
            return _load("timm").create_model(theirs, pretrained=False, **given)
        if theirs in WITH_AUXILIARY_OUTPUTS:
            given = {"aux_logits": False, "init_weights": True, **given}
        return _load("torchvision.models").get_model(theirs, weights=None, **given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"expected options that {name} takes, got {one_line(error)}; n_classes is one of them"
        ) from error


def _list_networks(library: str) -> Sequence[str]:
    if library == "timm":
        return _load("timm").list_models()
    models = _load("torchvision.models")
    return models.list_models(module=models)  # those that classify images


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"expected the library {module}, which is not installed; try pip install {module}"
        ) from error

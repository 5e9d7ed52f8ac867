"""Weights that hooks compute for each pass, from masks or norms: not to be cut, and no network to copy."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from dirprune.errors import ConfigurationError


def check_plain(network: nn.Module) -> None:
    """Check that no hook computes a weight of the network.

    Such a weight is no parameter but the outcome of the last pass, which torch does not copy once it carries
    a gradient. Parametrizations can be copied: they only keep their groups whole.

    Raises:
        ConfigurationError: If one does; names the module and what makes its weight plain.
    """
    for path, module in network.named_modules():
        for hook in module._forward_pre_hooks.values():
            if found := _explain(hook):
                what, remedy, name = found
                raise ConfigurationError(
                    f"expected plain weights, got {name!r} of {path or type(module).__name__!r} computed for "
                    f'each pass by {what}; try {remedy}(module, "{name}") first, for each such module'
                )


def _explain(hook: object) -> tuple[str, str, str] | None:
    """Return what a hook is, what removes it and which weight it computes; None for other hooks."""
    if isinstance(hook, BasePruningMethod):
        return "masks of torch.nn.utils.prune", "torch.nn.utils.prune.remove", hook._tensor_name
    if isinstance(hook, WeightNorm):
        return "torch.nn.utils.weight_norm", "torch.nn.utils.remove_weight_norm", hook.name
    if isinstance(hook, SpectralNorm):
        return "torch.nn.utils.spectral_norm", "torch.nn.utils.remove_spectral_norm", hook.name
    return None

"""Torch-pruning's dependency graph and surgery, without the seconds that its counter of operations loads for.

Where timm is installed, that counter imports all of timm's networks, in every command and every worker.
dirprune counts by itself (`dirprune.cost`), so timm is hidden meanwhile.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let a package seem not to be installed, unless it is loaded already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _hidden("timm"):
    from torch_pruning import DependencyGraph, ops
    from torch_pruning.pruner import function

__all__ = ["DependencyGraph", "function", "ops"]

"""Where work before the first trial is done: in this process, unless the caller knows of a better place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch

Answer = TypeVar("Answer")


class Place(Protocol):
    """Calls functions somewhere, and returns what they return."""

    def __call__(self, function: Callable[..., Answer], *given: Any, **heard: Any) -> Answer:
        """Call a function.

        Args:
            function: Of a module that every machine has; it is also given `device`, where it shall compute.
            given: Its arguments, which may have to travel.
            heard: Functions to which it tells how far it is, by the names that it gives them. They are called
                in this process, with what can travel.
        """


def here(function: Callable[..., Answer], *given: Any, **heard: Any) -> Answer:
    """Call a function in this process, on its GPU where it has one."""
    return function(*given, device="cuda" if torch.cuda.is_available() else "cpu", **heard)

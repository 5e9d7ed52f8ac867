"""A local Ray without the processes that nobody asks anything.

Ray has no options for these. Where a Ray has other names for them, it starts all that it would.
"""

from __future__ import annotations

import unittest.mock
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

_NOT_STARTED = ("start_api_server", "start_log_monitor", "start_monitor")
"""The server of the dashboard, which is started without a dashboard, too; what shows the driver the output of
workers, which `log_to_driver=False` leaves out; and what asks for more machines."""


@contextmanager
def without_idle_processes() -> Iterator[None]:
    """Let `ray.init` start a Ray of this process without them.

    The agent that is left on the node does what it does where `ray[default]` is not installed.
    """
    from ray._private import node, utils

    with ExitStack() as stack:
        for name in _NOT_STARTED:
            _replace(stack, node.Node, name, _do_nothing)
        _replace(stack, utils, "get_dashboard_dependency_error", _say_that_it_is_not_there)
        yield


def _replace(stack: ExitStack, owner: type | ModuleType, name: str, by: Any) -> None:
    if hasattr(owner, name):
        stack.enter_context(unittest.mock.patch.object(owner, name, by))


def _do_nothing(*_given: Any, **_named: Any) -> None:
    pass


def _say_that_it_is_not_there() -> ImportError:
    return ImportError("no dashboard is wanted")

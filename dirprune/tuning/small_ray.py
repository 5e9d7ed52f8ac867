"""A local Ray without the processes that nobody asks anything.

Ray has no options for these. Where a Ray has other names for them, it starts all that it would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray._private.node import Node

_NOT_STARTED = ("start_log_monitor", "start_monitor")
"""What shows the driver the output of workers, which `log_to_driver=False` leaves out, and what asks for more
machines."""


@contextmanager
def without_idle_processes() -> Iterator[None]:
    """Let `ray.init` start a Ray of this process without them, nor the server that a dashboard needs.

    The agent on the node stays, which Ray insists on; it serves nobody.
    """
    from ray._private import node, utils

    with ExitStack() as stack:
        for name in _NOT_STARTED:
            _replace(stack, node.Node, name, _do_nothing)
        _replace(stack, node.Node, "start_api_server", _name_no_server)
        _replace(stack, utils, "get_dashboard_dependency_error", _say_that_it_is_not_there)
        yield


def _replace(stack: ExitStack, owner: type | ModuleType, name: str, by: Any) -> None:
    if hasattr(owner, name):
        stack.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, by)


def _name_no_server(self: Node, **_named: Any) -> None:
    """Name a server, at a port where none can be: without one the agent looks for it every second."""
    from ray._private import ray_constants

    self.get_gcs_client().internal_kv_put(
        ray_constants.DASHBOARD_ADDRESS.encode(), b"127.0.0.1:0", True, ray_constants.KV_NAMESPACE_DASHBOARD
    )


def _do_nothing(*_given: Any, **_named: Any) -> None:
    pass


def _say_that_it_is_not_there() -> ImportError:
    return ImportError("no dashboard is wanted")

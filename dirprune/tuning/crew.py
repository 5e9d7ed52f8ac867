"""The workers that train one trial together: actors of Ray beside the trial's own, on its other bundles."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import ray
import torch
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dirprune.errors import one_line
from dirprune.parallel import Job, MemoryShortage, Part, Share, join
from dirprune.peer import Peer
from dirprune.training_state import Segment
from dirprune.trial import TrialContext

logger = logging.getLogger("dirprune.tuning")

PATIENCE_S = 10.0
"""How long an exchange that a lost worker has broken may take to fail by itself."""
LOST = 1
"""Exit status of a worker whose peer was lost."""


class PeerError(Exception):
    """A worker beside the trial's own raised; what it said is the message."""


class RayCrew:
    """See `dirprune.parallel.Crew`: workers on the other bundles of the trial's placement group.

    The peers end with the process that made them. Where one of them is lost, that process leaves at once, as
    if it had been lost itself: nobody could say how far the others are.

    So it does where memory runs out at one of them: Ray takes the trial up again from its checkpoint, and all
    compute in halves from then on.

    Args:
        context: What all trials share; it travels to each peer once.
        device: Where all of them compute.
    """

    def __init__(self, context: TrialContext, device: str) -> None:
        self.n_workers = context.n_workers
        self._note_shortage: Callable[[], None] = lambda: None
        self._failure: Exception | None = None
        self._has_failed = threading.Event()
        placement = ray.util.get_current_placement_group()
        assert placement is not None
        bundles = placement.bundle_specs
        shared = ray.put(context)
        self._peers: list[Any] = [
            ray.remote(_RayPeer)
            .options(
                max_concurrency=2,
                num_cpus=bundles[rank].get("CPU", 0),
                num_gpus=bundles[rank].get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement, rank),
            )
            .remote(shared, Share(rank, self.n_workers), device)
            for rank in range(1, self.n_workers)
        ]
        self._lives = [peer.live.remote() for peer in self._peers]
        threading.Thread(target=self._watch, daemon=True).start()
        host = ray.util.get_node_ip_address()
        with socket.socket() as listener:
            listener.bind((host, 0))
            port = listener.getsockname()[1]
            joining = [peer.join.remote(host, port) for peer in self._peers]
            join(Share(0, self.n_workers), host, port, device, listener)
        ray.get(joining)

    def begin(self, job: Job, note_shortage: Callable[[], None]) -> Callable[[], None]:
        """Let all take up a training; what is returned waits until they have."""
        self._note_shortage = note_shortage
        shared = ray.put(job)
        beginning = [peer.begin.remote(shared) for peer in self._peers]

        def wait() -> None:
            ray.get(beginning)

        return wait

    def advance(self, segments: Sequence[Segment], until: int) -> Callable[[], list[Part]]:
        """Let each train its segment up to a step; what is returned waits for what they say."""
        pairs = zip(self._peers, segments, strict=True)
        advancing = [peer.advance.remote(segment, until) for peer, segment in pairs]
        return lambda: ray.get(advancing)

    def give_up(self) -> NoReturn:
        """Note the shortage of memory and end this process and the others: none knows how far they are."""
        try:
            self._note_shortage()
        finally:  # a full disk must not leave the others waiting in an exchange
            os._exit(LOST)

    def explain(self, error: Exception) -> Exception:
        """Return why an exchange with them failed: their own error, if one of them had any."""
        self._has_failed.wait(PATIENCE_S)
        return self._failure or error

    def _watch(self) -> None:
        """Wait for the first peer that fails. An exchange with it would wait for ever on a GPU."""
        failed, _ = ray.wait(self._lives)
        try:
            ray.get(failed)
        except RayTaskError as error:
            if isinstance(error.cause, MemoryShortage):
                self.give_up()
            self._failure = PeerError(one_line(error.cause, has_type=True))
            self._has_failed.set()
            for peer in self._peers:  # its sockets close, so that the exchange fails
                ray.kill(peer)
            threading.Event().wait(PATIENCE_S)
            os._exit(LOST)
        except Exception as error:  # a worker or its node is gone
            logger.warning("a worker of this trial was lost: %s", one_line(error, has_type=True))
            os._exit(LOST)


class _RayPeer:
    """A peer in a process of its own. While `live` runs, the others run one after the other."""

    def __init__(self, context: TrialContext, share: Share, device: str) -> None:
        self.context, self.share, self.device = context, share, device
        self.peer: Peer | None = None
        self.failure: BaseException | None = None
        self.has_failed = threading.Event()

    def live(self) -> None:
        """Return never; raise what another call has raised."""
        self.has_failed.wait()
        assert self.failure is not None
        raise self.failure

    def join(self, host: str, port: int) -> None:
        """Enter the process group."""
        torch.set_num_threads(self.context.threads)
        self._tell(join, self.share, host, port, self.device)

    def begin(self, job: Job) -> None:
        """Take up a training."""
        self._tell(self._begin, job)

    def _begin(self, job: Job) -> None:
        if self.peer is None:
            self.peer = Peer(self.share, self.context.roles, self.context.spec.task(), self.device)
        self.peer.begin(job)

    def advance(self, segment: Segment, until: int) -> Part:
        """Train a segment up to a step."""
        assert self.peer is not None
        return self._tell(self.peer.advance, segment, until)

    def _tell(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except BaseException as error:
            self.failure = error
            self.has_failed.set()
            raise

"""Work before the first trial where trials run: the head of a cluster is often small and has no GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from dirprune.errors import DirpruneError, StudyError, one_line
from dirprune.study.place import Answer, here
from dirprune.tuning.cluster import LOCAL, Resources, Slots, connect
from dirprune.tuning.measuring import as_options

NOTICE_S = 30.0
POLL_S = 0.2
PAUSE_S = 0.5
"""Between two reports of progress, which comes far more often."""
MAX_LOST_WORKERS = 3
STARTED = "started"
PROGRESS = "progress"


class Errands:
    """A `Place`: this process for a Ray of its own, else one worker of a trial on the cluster.

    To be used in a `with` block, at whose end the cluster is left; it is joined at the first call.

    Args:
        resources: Of which cluster, and what a trial has.
        say: Takes the lines that a user should read.
    """

    def __init__(self, resources: Resources, say: Callable[[str], None]) -> None:
        self.resources, self.say = resources, say
        self._stack = ExitStack()
        self._slots: Slots | None = None

    def __enter__(self) -> Errands:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def __call__(self, function: Callable[..., Answer], *given: Any, **heard: Any) -> Answer:
        """See `dirprune.study.place.Place`; a worker that is lost is replaced, a few times.

        Raises:
            StudyError: If no worker came to the end of it.
            DirpruneError: As the function does.
        """
        if self.resources.address == LOCAL:
            return here(function, *given, **heard)
        if self._slots is None:
            self._slots = self._stack.enter_context(connect(self.resources))
        return self._do_there(self._slots, function, given, heard)

    def _do_there(
        self, slots: Slots, function: Callable[..., Answer], given: tuple[Any, ...], heard: Mapping[str, Any]
    ) -> Answer:
        import ray
        from ray.exceptions import RayError, RayTaskError
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        own = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": own})
        posts = {name: _Post(queue, name) for name in heard}
        errand: Any = ray.remote(_run).options(**as_options(slots.bundle), max_retries=MAX_LOST_WORKERS)
        task = errand.remote(self.resources.threads, _Post(queue, STARTED), function, given, posts)
        watch = _StartWatch(self.say, slots.bundle)
        try:
            while not ray.wait([task], timeout=POLL_S)[0]:
                _deliver(queue, {**heard, STARTED: watch.note_start})
                watch.look()
            _deliver(queue, {**heard, STARTED: watch.note_start})
            return ray.get(task)
        except RayTaskError as error:
            if isinstance(error.cause, DirpruneError):
                raise error.cause from None
            raise _cannot_prepare(error.cause) from error
        except RayError as error:
            raise _cannot_prepare(error) from error
        finally:
            queue.shutdown(force=True)


@dataclass
class _Post:
    """A function that is called on one machine and heard on another; pictures of progress may be left out."""

    queue: Any
    name: str
    sent: float = 0.0

    def __call__(self, *said: Any) -> None:
        now = time.monotonic()
        if self.name == PROGRESS:
            _, n_done, n_total = said
            if now - self.sent < PAUSE_S and 0 < n_done < n_total:
                return
        self.sent = now
        self.queue.put((self.name, said))


class _StartWatch:
    """Says once what an errand waits for that does not start."""

    def __init__(self, say: Callable[[str], None], bundle: Mapping[str, float]) -> None:
        self.say, self.bundle = say, bundle
        self.deadline: float | None = time.monotonic() + NOTICE_S

    def note_start(self) -> None:
        self.deadline = None

    def look(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.deadline = None
            wanted = ", ".join(f"{name} {amount:g}" for name, amount in self.bundle.items())
            self.say(f"waiting for a node with what a trial needs: {wanted}")


def _run(
    threads: int,
    tell_start: Callable[[], None],
    function: Callable[..., Answer],
    given: tuple[Any, ...],
    heard: Mapping[str, Any],
) -> Answer:
    """Call a function with the threads and the part of a GPU that a trial has."""
    from dirprune.tuning.gpu_share import choose_device, count_own_gpus, keep_to_share

    tell_start()
    torch.set_num_threads(threads)
    share = count_own_gpus()
    keep_to_share(share)
    return function(*given, device=choose_device(share), **heard)


def _deliver(queue: Any, heard: Mapping[str, Callable[..., None]]) -> None:
    """Call the functions with what was said since the last time."""
    for name, said in queue.get_nowait_batch(queue.qsize()):
        heard[name](*said)


def _cannot_prepare(error: BaseException) -> StudyError:
    return StudyError(
        f"expected a node of the cluster to prepare the study, got {one_line(error, has_type=True)}; "
        "what it kept is there: the same command goes on"
    )

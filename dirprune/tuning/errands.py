"""Work before the first trial, done where trials run if this machine is less than that.

The head of a cluster in a cloud is small and has no GPU: a dense network is better not trained there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch

from dirprune.device import is_out_of_memory
from dirprune.errors import DirpruneError, StudyError, one_line
from dirprune.study.place import Answer, here
from dirprune.training_run import TrainingReport
from dirprune.tuning.cluster import LOCAL, Resources, Slots, connect, count_cpus, name_amounts
from dirprune.tuning.machines import cannot_see
from dirprune.tuning.measuring import as_options
from dirprune.tuning.own_methods import OwnMethods

NOTICE_S = 30.0
POLL_S = 0.2
PAUSE_S = 0.5
"""Between two reports of progress, which comes far more often."""
MAX_LOST_WORKERS = 3
STARTED, LOGGED, PROGRESS = "started", "logged", "progress"
LOGGER = logging.getLogger("dirprune")


class Errands:
    """A `Place`: this process, or one worker of a trial where that has what this machine has not.

    That is a GPU, or more CPU cores. To be used in a `with` block, at whose end the cluster is left; it is
    joined at the first call.

    Args:
        resources: Of which cluster, and what a trial has.
        say: Takes the lines that a user should read.
        shared: A folder that all machines must see; None: there is none.
        methods: What a worker registers before it calls a function.
    """

    def __init__(
        self,
        resources: Resources,
        say: Callable[[str], None],
        shared: Path | None = None,
        methods: OwnMethods | None = None,
    ) -> None:
        self.resources, self.say, self.shared = resources, say, shared
        self.methods = methods or OwnMethods()
        self._stack = ExitStack()
        self._slots: Slots | None = None

    def __enter__(self) -> Errands:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def is_elsewhere(self) -> bool:
        """Whether functions are called on another machine."""
        if self.resources.address == LOCAL or torch.cuda.is_available():
            return False
        with connect(self.resources) as slots:
            needs_gpu = slots.bundle.get("GPU", 0.0) > 0
        return needs_gpu or self.resources.threads > count_cpus()

    def __call__(self, function: Callable[..., Answer], *given: Any, **heard: Any) -> Answer:
        """See `dirprune.study.place.Place`.

        A worker that is lost is replaced: without end where its machine was lost, or as long as reports of a
        training come in between, else a few times.

        Raises:
            StudyError: If no worker came to the end of it, or one does not see the shared folder.
            Exception: Whatever the function raises.
        """
        if not self.is_elsewhere:
            return here(function, *given, **heard)
        if self._slots is None:
            self._slots = self._stack.enter_context(connect(self.resources))
        return self._do_there(self._slots, function, given, heard)

    def _do_there(
        self, slots: Slots, function: Callable[..., Answer], given: tuple[Any, ...], heard: Mapping[str, Any]
    ) -> Answer:
        import ray
        from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        own = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        losses = _Losses()
        queue = None
        try:
            queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": own})
            posts = {name: _Post(queue, name) for name in [*heard, STARTED, LOGGED]}
            errand: Any = ray.remote(_run).options(**as_options(slots.bundle), max_retries=0)
            sent = (ray.put(given), posts, self.resources.threads, self.shared, self.methods)
            while True:
                watch = _StartWatch(self.say, slots.bundle)
                inbox = _Inbox(queue, {**heard, STARTED: watch.note_start, LOGGED: LOGGER.log}, losses)
                task = errand.remote(function, *sent)
                try:
                    while not ray.wait([task], timeout=POLL_S)[0]:
                        inbox.empty()
                        watch.look()
                    inbox.empty()
                    return ray.get(task)
                except (NodeDiedError, OutOfMemoryError, WorkerCrashedError) as error:
                    if losses.count(is_forgiven=isinstance(error, NodeDiedError)) > MAX_LOST_WORKERS:
                        raise
                    self.say("a worker that prepared the study was lost; another one goes on")
        except RayTaskError as error:
            if isinstance(error.cause, DirpruneError) or is_out_of_memory(error.cause):
                raise error.cause from None
            raise  # an error of the study's own functions, with the place where it happened
        except RayError as error:
            raise StudyError(
                "expected a worker of the cluster to prepare the study, got "
                f"{one_line(error, has_type=True)}; a training under way goes on with the same command"
            ) from error
        finally:
            if queue is not None:
                queue.shutdown(force=True)


class _Losses:
    """Counts workers that were lost since the work last went on for good."""

    def __init__(self) -> None:
        self.n_lost = 0

    def count(self, is_forgiven: bool) -> int:
        """Count one more, unless its machine was lost with it, and return how many there are."""
        self.n_lost += not is_forgiven
        return self.n_lost

    def forget(self) -> None:
        self.n_lost = 0


@dataclass
class _Post:
    """A function that is called on one machine and heard on another; some of the progress is left out."""

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
        self.queue.put((self.name, [_make_portable(each) for each in said]))


def _make_portable(said: Any) -> Any:
    return replace(said, capture=_cannot_capture) if isinstance(said, TrainingReport) else said


def _cannot_capture() -> NoReturn:
    raise NotImplementedError("the training is on another machine")


@dataclass
class _Inbox:
    """Calls the functions for which something was said."""

    queue: Any
    heard: Mapping[str, Callable[..., Any]]
    losses: _Losses

    def empty(self) -> None:
        """Call them with what was said since the last time."""
        for name, said in self.queue.get_nowait_batch(self.queue.qsize()):
            if name not in (STARTED, LOGGED, PROGRESS):
                self.losses.forget()  # a report of a training, which has left a checkpoint
            self.heard[name](*said)


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
            self.say(f"waiting for a node with what a worker of a trial needs: {name_amounts(self.bundle)}")


class _LogPost(logging.Handler):
    """Sends warnings to where the user is."""

    def __init__(self, post: _Post) -> None:
        super().__init__(logging.WARNING)
        self.post = post

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.post(record.levelno, "%s", record.getMessage())
        except Exception:  # a warning that does not arrive must not end what it is about
            self.handleError(record)


def _run(
    function: Callable[..., Answer],
    given: tuple[Any, ...],
    posts: Mapping[str, _Post],
    threads: int,
    shared: Path | None,
    methods: OwnMethods,
) -> Answer:
    """Call a function with the threads and the part of a GPU that a worker of a trial has."""
    from dirprune.tuning.gpu_share import choose_device, count_own_gpus, keep_to_share

    posts[STARTED]()
    if shared is not None and not shared.is_dir():
        raise cannot_see(shared)
    methods.register()
    heard = {name: post for name, post in posts.items() if name not in (STARTED, LOGGED)}
    torch.set_num_threads(threads)
    share = count_own_gpus()
    keep_to_share(share)
    handler = _LogPost(posts[LOGGED])
    LOGGER.addHandler(handler)
    try:
        return function(*given, device=choose_device(share), **heard)
    finally:
        LOGGER.removeHandler(handler)

"""Batches that are read ahead across the places where a training looks up."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import contextmanager

from dirprune.data.split import Batch


class ReadAhead:
    """Keep what yields a training's batches open between the calls that take them.

    Processes that read and decode end with it, and to start them takes longer than many steps.
    """

    def __init__(self) -> None:
        self._batches: Generator[Batch, None, None] | None = None
        self._place: Hashable = None

    @contextmanager
    def going_on(
        self,
        find_place: Callable[[], Hashable],
        read: Callable[[], Generator[Batch, None, None]],
    ) -> Iterator[Iterator[Batch]]:
        """Yield the batches from a place on: those that are open, if it is where the last body left them.

        Args:
            find_place: Tells where the training stands, before the body and after it.
            read: Opens the batches from there to the end; they are closed by an error in the body.
        """
        if self._batches is None or self._place != find_place():
            self.close()
            self._batches = read()
        try:
            yield self._batches
        except BaseException:
            self.close()
            raise
        self._place = find_place()

    def close(self) -> None:
        """End those who read."""
        if self._batches is not None:
            self._batches.close()
        self._batches = None

"""Syne Tune's MOASHA on the simulated clock; it runs in a Python of its own that has syne-tune."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from search_clock import Job, Side
from search_grid import EPOCHS
from search_table import Table

PEER = Path(__file__).with_name("search_moasha_peer.py")


class Moasha(Side):
    """MOASHA with its defaults: random architectures, stopped by non-dominated rank after a first pass.

    Args:
        grid: The table.
        seed: Of the search.
        python: The Python that has syne-tune.
        reduction_factor: 3 is its default.
    """

    rungs = (1,)

    def __init__(self, grid: Table, seed: int, python: Path, reduction_factor: float) -> None:
        self.grid = grid
        given = {
            "seed": seed,
            "space": dict(zip(grid.names, grid.macs.shape, strict=True)),
            "max_t": EPOCHS[-1],
            "reduction_factor": reduction_factor,
        }
        self.process = subprocess.Popen(
            [str(python), str(PEER), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._n_trials = 0

    def next(self) -> Job:
        """Ask for an architecture."""
        number = self._n_trials
        self._n_trials += 1
        found = self._ask({"do": "suggest"})
        return Job(number, tuple(found[name] for name in self.grid.names))

    def report(self, job: Job, epochs: int, accuracy: float) -> bool:
        """Let MOASHA decide; it hears no more of a trial that it stops."""
        return bool(self._tell("report", job, epochs, accuracy))

    def complete(self, job: Job, accuracy: float) -> None:
        """Tell the end."""
        self._tell("complete", job, EPOCHS[-1], accuracy)

    def close(self) -> None:
        """End the other process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _tell(self, what: str, job: Job, epochs: int, accuracy: float) -> Any:
        error, macs = self.grid.losses(job.place, accuracy)
        result = {"error": error, "macs": macs, "epochs": epochs}
        return self._ask({"do": what, "trial": job.number, "result": result})

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("expected an answer of MOASHA, got none; does that Python have syne-tune?")
        return json.loads(line)

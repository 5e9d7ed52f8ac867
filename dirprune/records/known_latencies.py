"""Latencies that were measured already, and those of new networks that are measured beside the dense one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from dirprune.files import read_json, write_json
from dirprune.identity import digest
from dirprune.latency import Latency

SCHEMA = 1
DENSE: tuple[int, ...] = ()
"""What stands for the architecture of the dense network."""
BESIDE = "beside_ms"
"""What the dense network took when an architecture was measured, or when that was widened to its pace."""

Architecture = tuple[int, ...]
Measure = Callable[[Sequence[Architecture]], Sequence[Latency]]


class LatencyCache:
    """Latencies that were measured already, by architecture and all else that they depend on.

    Both are beside each latency for whoever reads the file. Several processes may keep theirs in one file.

    Args:
        path: File that keeps them; it need not exist.
        setting: See `dirprune.latency.describe_setting`, and the numbers of passes and of rounds. So those
            that earlier versions measured without rounds, one network after the other, are not found.
    """

    def __init__(self, path: Path, setting: Mapping[str, str | int]) -> None:
        self.path, self.setting = path, dict(setting)
        self.known = self._read()

    def get(self, architecture: Architecture) -> Latency | None:
        """Return how long an architecture takes; None: not known, or not at the pace of the dense network."""
        found = self.known.get(self._name(architecture))
        if found is None or (architecture != DENSE and found.get(BESIDE) != self._find_pace()):
            return None
        return Latency(**{field.name: found[field.name] for field in fields(Latency)})

    def add(self, latencies: Mapping[Architecture, Latency]) -> None:
        """Keep what was measured in the same rounds, in place of what was known of these architectures.

        What was measured beside another value of the dense network is not known any more.
        """
        pace = latencies[DENSE].median_ms if DENSE in latencies else self._find_pace()
        added = {
            self._name(each): {
                **asdict(taken),
                BESIDE: pace,
                "architecture": list(each),
                "setting": self.setting,
            }
            for each, taken in latencies.items()
        }
        with FileLock(self.path.with_name(f".{self.path.stem}.lock")):
            self.known = {
                **self._read(),
                **added,
            }  # others may have measured meanwhile
            write_json(self.path, {"latencies": self.known}, SCHEMA)

    def _find_pace(self) -> float | None:
        return self.known.get(self._name(DENSE), {}).get("median_ms")

    def _read(self) -> dict[str, Any]:
        return read_json(self.path, SCHEMA)["latencies"] if self.path.exists() else {}

    def _name(self, architecture: Architecture) -> str:
        return digest(self.setting, list(architecture))


@dataclass(frozen=True)
class Found:
    """Latencies that can be compared with each other.

    Attributes:
        latencies: Of each architecture, the dense one among them.
        n_known: How many were measured by an earlier command; 0: all at once now.
        pace: How long the dense network takes now, as a multiple of what it took when it was measured first;
            None: it was not measured again.
    """

    latencies: Mapping[Architecture, Latency]
    n_known: int = 0
    pace: float | None = None


def find_latencies(architectures: Sequence[Architecture], cache: LatencyCache, measure: Measure) -> Found:
    """Return the latencies of a front, measuring those that are not known.

    Beside new networks the dense one is timed again, because of two networks that were not timed in the same
    rounds only what the dense network took with each says how they compare. Where it is now slower or faster
    than both spreads explain, nothing can be compared, and all are measured anew. Else the quartiles of the
    new ones are moved apart so that they also hold what these would take at the earlier pace.

    What is measured is kept when all of it is there: half a measurement is worth nothing.

    Args:
        architectures: All of them, `DENSE` among them.
        cache: What is known, and where what is new is kept.
        measure: Times networks in turns.
    """
    known = {each: latency for each in architectures if (latency := cache.get(each)) is not None}
    new = [each for each in architectures if each not in known]
    if not new:
        return Found(known, len(known))
    pace = None
    if DENSE in known:
        beside = [DENSE, *new]
        taken = dict(zip(beside, measure(beside), strict=True))
        then, now = known[DENSE], taken.pop(DENSE)
        pace = now.median_ms / then.median_ms
        if now.low_ms <= then.high_ms and then.low_ms <= now.high_ms:
            added = {each: _widen(latency, 1 / pace) for each, latency in taken.items()}
            cache.add(added)
            return Found({**known, **added}, len(known), pace)
    latencies = dict(zip(architectures, measure(architectures), strict=True))
    cache.add(latencies)
    return Found(latencies, 0, pace)


def _widen(latency: Latency, factor: float) -> Latency:
    """Return a latency with quartiles that also hold those at another pace."""
    low, high = latency.low_ms, latency.high_ms
    return Latency(latency.median_ms, min(low, low * factor), max(high, high * factor))

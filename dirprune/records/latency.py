"""How long the networks of a front take: a table of measurements, and MACs against latency as a picture."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dirprune.files import read_json, write_atomically, write_json
from dirprune.identity import digest
from dirprune.latency import Latency
from dirprune.records.appearance import COLOURS, DENSE_COLOUR

SCHEMA = 1
DOTS_PER_INCH = 150
COLUMNS = (
    "trial",
    "val_accuracy",
    "macs",
    "parameters",
    "latency_ms",
    "low_ms",
    "high_ms",
    "speed_up",
    "beaten_by",
)


@dataclass(frozen=True)
class Timed:
    """A network and how long it takes.

    Attributes:
        trial: Its trial; None: the dense network.
        metrics: What is known of it, macs among it.
        latency: As measured.
    """

    trial: int | None
    metrics: dict[str, float]
    latency: Latency


class LatencyCache:
    """Latencies that were measured already, by architecture and all else that they depend on.

    Args:
        path: File that keeps them; it need not exist.
        setting: See `dirprune.latency.describe_setting`, and the number of passes.
    """

    def __init__(self, path: Path, setting: Mapping[str, str | int]) -> None:
        self.path, self.setting = path, dict(setting)
        self.known: dict[str, Any] = read_json(path, SCHEMA)["latencies"] if path.exists() else {}

    def get(self, architecture: Sequence[int], measure: Callable[[], Latency]) -> tuple[Latency, bool]:
        """Return how long an architecture takes, and whether it was known."""
        key = digest(self.setting, list(architecture))
        is_known = key in self.known
        if not is_known:
            self.known[key] = asdict(measure())
            write_json(self.path, {"latencies": self.known}, SCHEMA)
        return Latency(**self.known[key]), is_known


def find_beaten(networks: Sequence[Timed]) -> dict[int, int]:
    """Return which trials are surely slower than another one that is at least as accurate, and than which.

    Surely means beyond both spreads: the quartiles of the two do not overlap.

    Args:
        networks: With a `val_accuracy`, or none is compared.
    """
    rated = [n for n in networks if n.trial is not None and "val_accuracy" in n.metrics]
    beaten = {}
    for one in rated:
        for other in sorted(rated, key=lambda network: network.latency.median_ms):
            is_as_good = other.metrics["val_accuracy"] >= one.metrics["val_accuracy"]
            if is_as_good and other.latency.high_ms < one.latency.low_ms:
                assert one.trial is not None
                assert other.trial is not None
                beaten[one.trial] = other.trial
                break
    return beaten


def tabulate(networks: Sequence[Timed], dense: Latency) -> list[list[str]]:
    """Return a row of text for each network, in the order of `COLUMNS`."""
    beaten = find_beaten(networks)
    rows = []
    for network in networks:
        latency, metrics = network.latency, network.metrics
        accuracy = metrics.get("val_accuracy")
        rows.append(
            [
                "dense" if network.trial is None else str(network.trial),
                "" if accuracy is None else f"{accuracy:.4f}",
                f"{metrics['macs']:.0f}",
                f"{metrics['parameters']:.0f}",
                *(f"{value:.4g}" for value in (latency.median_ms, latency.low_ms, latency.high_ms)),
                f"{dense.median_ms / latency.median_ms:.2f}",
                str(beaten.get(network.trial, "")) if network.trial is not None else "",
            ]
        )
    return rows


def write_latency_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write what `tabulate` gave."""
    with write_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(rows)


def write_latency_png(path: Path, networks: Sequence[Timed], title: str) -> None:
    """Draw MACs against latency; the line from nothing to the dense network is what MACs alone would promise.

    Args:
        path: File to write.
        networks: The dense one among them.
        title: What was measured where.
    """
    figure = Figure(figsize=(7.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    dense = next(network for network in networks if network.trial is None)
    axes.plot(
        [0, dense.metrics["macs"]],
        [0, dense.latency.median_ms],
        color="0.7",
        linestyle="--",
        linewidth=1,
        label="in proportion to MACs",
    )
    for network in networks:
        latency = network.latency
        is_dense = network.trial is None
        axes.errorbar(
            network.metrics["macs"],
            latency.median_ms,
            [[latency.median_ms - latency.low_ms], [latency.high_ms - latency.median_ms]],
            fmt="s" if is_dense else "o",
            color=DENSE_COLOUR if is_dense else COLOURS[0],
            capsize=2,
            label="dense" if is_dense else None,
        )
        if not is_dense:
            place = (network.metrics["macs"], latency.median_ms)
            axes.annotate(str(network.trial), place, (4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel="MACs", ylabel="latency, ms (median and quartiles)", xlim=(0, None), ylim=(0, None))
    axes.set_title(title.replace("$", r"\$"), loc="left", fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")

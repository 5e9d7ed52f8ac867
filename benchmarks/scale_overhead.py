"""What a study costs beside its trials: ours and plain Ray Tune run the same sleeping trials, in turns.

    python benchmarks/scale_overhead.py --output DIR rate    [--seconds 0.05,1] [--trials 200,40]
    python benchmarks/scale_overhead.py --output DIR share   [--seconds 5] [--trials 40]
    python benchmarks/scale_overhead.py --output DIR raylets [--nodes 1,4,8] [--seconds 2]
    python benchmarks/scale_overhead.py --output DIR slots   [--slots 16,64] [--seconds 5]

`rate`: trials per second of both until the last one ended, and their ratio in each repetition. Plain Ray Tune
draws one number for a trial and keeps no accounts; ours keeps all of them: journal, halving, front, tables,
pictures. `share`: the part of a wall time, with the last pictures but without the start of Ray, that is not
trials. `raylets` and `slots`: trials per second against slots / seconds of a trial, the most that there could
be; real raylets on this machine with two slots each, and one raylet that declares more CPUs than it has. The
first round, which starts the workers, does not count: the clock runs from the first ending to the last.
Trials sleep, so that the driver has the cores for itself.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from ray import tune
from scale import find_subject, open_ledger

from dirprune.cli.printing import format_table
from dirprune.records.record import TrialRecord
from dirprune.study.observer import StudyObserver
from dirprune.tuning.cluster import Resources, Slots, connect
from dirprune.tuning.execution import execute

N_GROUPS = 4
CPUS = 0.5


class SleepingTrainable(tune.Trainable):
    """A trial that sleeps and reports once; it needs nothing but Ray in its worker."""

    def setup(self, config: dict[str, Any], seconds: float = 0.0) -> None:
        """Learn how long to sleep."""
        self.seconds = seconds

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial."""
        return True

    def step(self) -> dict[str, Any]:
        """Run the whole trial."""
        import random
        import time

        time.sleep(self.seconds)
        metrics = {"val_accuracy": random.random(), "macs": 1000.0 * random.random(), "parameters": 1000.0}
        return {"images": 3000, "metrics": list(metrics.items()), "is_final": True, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Save nothing."""

    def load_checkpoint(self, checkpoint: dict | None) -> None:
        """Load nothing."""


def run_plain(slots: Slots, seconds: float, n_trials: int) -> float:
    """Return the wall time in s of plain Ray Tune."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(SleepingTrainable, seconds=seconds),
                {"cpu": slots.bundle["CPU"], "gpu": 0},
            ),
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                num_samples=n_trials, max_concurrent_trials=slots.n_trials, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=scratch, verbose=0),
        ).fit()
    return time.perf_counter() - began


class Endings(StudyObserver):
    """Notes when trials ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def trial_changed(self, record: TrialRecord) -> None:
        """Note the time, in s."""
        if record.state != "RUNNING":
            self.times.append(time.perf_counter())


def run_ours(
    slots: Slots, seconds: float, n_trials: int, has_end: bool = False, endings: Endings | None = None
) -> float:
    """Return the wall time in s of a study with all its accounts, and with its last pictures if asked for."""
    subject = find_subject(N_GROUPS)
    with tempfile.TemporaryDirectory() as output:
        began = time.perf_counter()
        ledger = open_ledger(Path(output), subject, n_trials, "tpe")
        ledger.observers = [*ledger.observers, *([endings] if endings else [])]
        ledger.start()
        execute(ledger, slots, SleepingTrainable, seconds=seconds)
        if has_end:
            ledger.end(interrupted=False)
        elapsed = time.perf_counter() - began
        assert ledger.counts == {"COMPLETE": n_trials}, ledger.counts
    return elapsed


@contextmanager
def start_raylets(n_nodes: int, cpus: float) -> Iterator[Slots]:
    """Yield the slots of a cluster of real raylets on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus})
    try:
        for _ in range(n_nodes - 1):
            cluster.add_node(num_cpus=cpus)
        cluster.wait_for_nodes()
        with connect(Resources(cluster.address, cpus_per_trial=1.0)) as slots:
            yield slots
    finally:
        cluster.shutdown()


@click.group
@click.option("--output", type=Path, required=True, help="Folder of the results, one file of lines each.")
@click.pass_context
def main(context: click.Context, output: Path) -> None:
    """Measure one thing and append it to OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    context.obj = output


def note(output: Path, kind: str, row: dict[str, Any]) -> None:
    """Keep what was measured."""
    with (output / f"{kind}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    click.echo(json.dumps(row), err=True)


@main.command
@click.option("--seconds", default="0.05,1")
@click.option("--trials", default="200,40")
@click.option("--repetitions", default=3)
@click.pass_obj
def rate(output: Path, seconds: str, trials: str, repetitions: int) -> None:
    """Compare trials per second with plain Ray Tune."""
    sides: dict[str, Callable[[Slots, float, int], float]] = {"plain": run_plain, "ours": run_ours}
    table = []
    with connect(Resources(cpus_per_trial=CPUS)) as slots:
        for run in sides.values():
            run(slots, 0.05, 20)
        for length, n_trials in zip(map(float, seconds.split(",")), map(int, trials.split(",")), strict=True):
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for repetition in range(repetitions):
                for side in sorted(sides, reverse=repetition % 2 == 1):
                    rates[side].append(n_trials / sides[side](slots, length, n_trials))
                newest = {side: values[-1] for side, values in rates.items()}
                note(
                    output, "rate", {"seconds": length, "trials": n_trials, "slots": slots.n_trials, **newest}
                )
            ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
            medians = [f"{statistics.median(rates[side]):.2f}" for side in ("plain", "ours")]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            table.append([f"{length:g}", str(slots.n_trials), *medians, spread])
    click.echo(format_table(["trial, s", "slots", "plain, trials/s", "ours, trials/s", "ratio"], table))


@main.command
@click.option("--seconds", default=5.0)
@click.option("--trials", default=40)
@click.pass_obj
def share(output: Path, seconds: float, trials: int) -> None:
    """Measure how much of a study's wall time is not trials."""
    with connect(Resources(cpus_per_trial=CPUS)) as slots:
        endings = Endings()
        elapsed = run_ours(slots, seconds, trials, has_end=True, endings=endings)
        ideal = -(-trials // slots.n_trials) * seconds
        lost = 1 - ideal / elapsed
        steady = endings.times[-1] - endings.times[0]
        row = {"seconds": seconds, "trials": trials, "slots": slots.n_trials, "wall_s": elapsed, "lost": lost}
        row["lost_between_endings"] = 1 - (ideal - seconds) / steady
        note(output, "share", row)


@main.command
@click.option("--nodes", default="1,4,8")
@click.option("--seconds", default=2.0)
@click.option("--rounds", default=6, help="Trials of each slot.")
@click.pass_obj
def raylets(output: Path, nodes: str, seconds: float, rounds: int) -> None:
    """Measure how trials per second grow with real raylets."""
    for n_nodes in map(int, nodes.split(",")):
        with start_raylets(n_nodes, cpus=2.0) as slots:
            note(output, "raylets", {"nodes": n_nodes, **measure_efficiency(slots, seconds, rounds)})


@main.command(name="slots")
@click.option("--slots", "numbers", default="16,64")
@click.option("--seconds", default=5.0)
@click.option("--rounds", default=6, help="Trials of each slot.")
@click.pass_obj
def many_slots(output: Path, numbers: str, seconds: float, rounds: int) -> None:
    """Measure how trials per second grow with declared slots."""
    for n_slots in map(int, numbers.split(",")):
        with start_raylets(1, cpus=float(n_slots)) as slots:
            note(output, "slots", {"nodes": 1, **measure_efficiency(slots, seconds, rounds)})


def measure_efficiency(slots: Slots, seconds: float, rounds: int) -> dict[str, float]:
    """Return trials per second between the first ending and the last, and their part of what could be."""
    endings = Endings()
    n_trials = (rounds + 1) * slots.n_trials
    elapsed = run_ours(slots, seconds, n_trials, endings=endings)
    rate = (n_trials - slots.n_trials) / (endings.times[-1] - endings.times[0])
    found = {"slots": slots.n_trials, "seconds": seconds, "trials": n_trials, "wall_s": elapsed}
    return {**found, "trials_per_s": rate, "efficiency": rate * seconds / slots.n_trials}


if __name__ == "__main__":
    main()

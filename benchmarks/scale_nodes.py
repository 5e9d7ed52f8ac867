"""A study of sleeping trials on one machine and on several, by `ray up` and `ray submit`.

    sudo .venv/bin/python benchmarks/scale_nodes.py --output DIR [--nodes 1,4] [--rounds 5]

Each machine has one core by its cgroup, a Ray of its own and one trial at a time (tests/cluster/machines.py);
they share this machine's cores, so that trials sleep. Trials per second are counted from the first ending to
the last: the first round, which starts the workers, does not count. `at work` is the part of the machines'
time from a trial's start to the driver's note of its end; the rest is waiting for the next one. Efficiency
is trials per second and machine against the fewest machines'.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from dirprune.cli.printing import format_table  # noqa: E402
from dirprune.tuning import storage  # noqa: E402
from tests.cluster.machines import find_missing  # noqa: E402
from tests.cluster.rehearsal import rehearse  # noqa: E402

STUDY = Path(__file__).with_name("sleeping_study.py")


@click.command
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--nodes", default="1,4", show_default=True, help="Machines, the head included.")
@click.option("--rounds", default=5, show_default=True, help="Trials of each machine, after the first one.")
def main(output: Path, nodes: str, rounds: int) -> None:
    """Measure how trials per second grow with machines."""
    if missing := find_missing():
        raise click.UsageError(missing)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for n_nodes in map(int, nodes.split(",")):
        rows.append(measure(n_nodes, rounds))
        with (output / "nodes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    base = rows[0]["trials_per_s"] / rows[0]["nodes"]
    table = [
        [
            str(row["nodes"]),
            str(row["trials"]),
            f"{row['trials_per_s']:.3f}",
            f"{row['at_work']:.1%}",
            f"{row['trials_per_s'] / row['nodes'] / base:.1%}",
        ]
        for row in rows
    ]
    click.echo(format_table(["nodes", "trials", "trials/s", "at work", "efficiency"], table))


def measure(n_nodes: int, rounds: int) -> dict[str, float]:
    """Return what a study on so many machines did."""
    n_trials = n_nodes * (rounds + 1)
    with (
        tempfile.TemporaryDirectory(prefix="dirprune-nodes-") as scratch,
        rehearse(Path(scratch), n_workers=n_nodes, study="sleeping") as rehearsal,  # the last one stays off
    ):
        shutil.copy(STUDY, rehearsal.laptop.home / "dirprune" / rehearsal.script)
        rehearsal.up()
        rehearsal.run_submitted("--trials", str(n_trials))
        records = storage.read_records(rehearsal.folder)
        n_machines = len({start["machine"] for start in rehearsal.starts()})
    assert {record.state for record in records} == {"COMPLETE"}
    assert n_machines == n_nodes, f"{n_machines} machines worked"
    endings = sorted(record.ended_at or 0.0 for record in records)
    first, last = endings[0], endings[-1]
    times = [(record.started_at or 0.0, record.ended_at or 0.0) for record in records]
    at_work = sum(max(0.0, ended - max(started, first)) for started, ended in times)
    return {
        "nodes": n_nodes,
        "trials": n_trials,
        "trials_per_s": (n_trials - n_nodes) / (last - first),
        "at_work": at_work / (n_nodes * (last - first)),
    }


if __name__ == "__main__":
    main()

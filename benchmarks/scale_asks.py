"""What it costs to ask for the next trial, by sampler and by the number of trials that a study has.

    python benchmarks/scale_asks.py [--sizes 100,1000,3000,10000] [--groups 60] [--samplers plain-tpe,tpe]

The study lies in memory: a cost target and an offset for each group, an importance method, two objectives.
One trial in three is finished, the others were stopped at one of two rungs. An ask ends when every parameter
has its value; each is told before the next one. The first ask is shown by itself: a sampler of ours has read
the study by then, as when a driver opens it, the others read it there.
Seconds are the processor's, so set OMP_NUM_THREADS=1. Python's collector of garbage runs as it does in a
driver (`--collector driver`), as in any program (`plain`), or not at all (`off`).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import click
import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from dirprune.cli.printing import format_table
from dirprune.study.shapes import Suggests
from dirprune.tuning.garbage import GarbageSweep, sweeping
from dirprune.tuning.samplers import SAMPLERS, make_sampler
from dirprune.tuning.samplers.learning import LearningSampler

PLAIN = {
    "plain-tpe": lambda: optuna.samplers.TPESampler(multivariate=True, seed=0),
    "plain-nsga2": lambda: optuna.samplers.NSGAIISampler(seed=0),
}
METHODS = ("dirichlet", "fisher", "magnitude", "taylor")


def make_space(n_groups: int) -> dict[str, BaseDistribution]:
    """Return the parameters of a budgeted study."""
    offsets = {f"offset/layer{group}": FloatDistribution(-1.0, 1.0) for group in range(n_groups)}
    return {"target": FloatDistribution(0.01, 1.0), **offsets, "method": CategoricalDistribution(METHODS)}


def judge(params: dict, rng: np.random.Generator) -> tuple[list[float], dict[str, list[float]]]:
    """Return made-up objectives, and losses at two rungs."""
    offsets = [value for name, value in params.items() if name.startswith("offset/")]
    loss = 1 - params["target"] ** 0.2 + float(np.std(offsets)) + abs(float(rng.normal(0, 0.02)))
    rungs = {f"rung:{rung}": [loss + lag, params["target"]] for rung, lag in ((0, 0.4), (1000, 0.1))}
    return [loss, params["target"]], rungs


def fill_(study: optuna.Study, space: dict[str, BaseDistribution], n_trials: int) -> None:
    """Add random trials until there are so many."""
    rng = np.random.default_rng(len(study.trials))
    for number in range(len(study.get_trials(deepcopy=False)), n_trials):
        params = {
            name: str(rng.choice(METHODS)) if name == "method" else float(rng.uniform(d.low, d.high))
            for name, d in space.items()
        }
        values, rungs = judge(params, rng)
        is_finished = number % 3 == 0
        if number % 3 == 1:
            del rungs["rung:1000"]
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_finished else TrialState.PRUNED,
                values=values if is_finished else None,
                params=params,
                distributions=space,
                user_attrs=rungs,
            )
        )


@contextmanager
def uncollected() -> Iterator[None]:
    """Let Python collect no garbage in the body."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


COLLECTORS = {"driver": sweeping, "plain": nullcontext, "off": uncollected}
CHANGES = 4
"""Of a trial in a study: it is handed out, reports at two rungs, ends."""


class Space:
    """What a sampler that knows costs is told of the space: the target is the cost."""

    reference = np.array([2.0, 1.0])

    def __init__(self, space: dict[str, BaseDistribution]) -> None:
        self.space = space

    def look(self, trial: Suggests, architecture: object = None) -> tuple[np.ndarray, np.ndarray]:
        """Draw all parameters."""
        drawn = [trial.suggest_float(n, d.low, d.high) for n, d in self.space.items() if n != "method"]
        method = trial.suggest_categorical("method", METHODS)
        marks = [float(method == other) for other in METHODS]
        return np.array([*drawn, *marks]), np.array([np.nan, drawn[0]])

    def spread(self, rng: np.random.Generator) -> dict[str, float]:
        """Return a target."""
        return {"target": float(rng.uniform(0.01, 1.0))}


def ask(study: optuna.Study, space: dict[str, BaseDistribution]) -> float:
    """Ask for a trial, tell it, and return the seconds of the processor that the ask took."""
    began = time.process_time()
    trial = study.ask(space)
    seconds = time.process_time() - began
    values, rungs = judge(trial.params, np.random.default_rng(trial.number))
    for name, losses in rungs.items():
        trial.set_user_attr(name, losses)
    study.tell(trial, values)
    return seconds


@click.command(context_settings={"show_default": True})
@click.option("--sizes", default="100,1000,3000,10000")
@click.option("--groups", "n_groups", default=60)
@click.option("--samplers", default=f"plain-tpe,plain-nsga2,{','.join(s for s in SAMPLERS if s != 'gp')}")
@click.option("--asks", "n_asks", default=20, help="Of each sampler at each size.")
@click.option("--collector", type=click.Choice(list(COLLECTORS)), default="driver")
def main(sizes: str, n_groups: int, samplers: str, n_asks: int, collector: str) -> None:
    """Measure asks."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space, rows = make_space(n_groups), []
    study = optuna.create_study(directions=["minimize", "minimize"])
    for size in (int(text) for text in sizes.split(",")):
        fill_(study, space, size)
        for name in samplers.split(","):
            with COLLECTORS[collector]() as sweep:
                first, *others = measure(study, space, name, size, n_asks, sweep)
            cells = [np.median(others), max(others), first]
            rows.append([name, f"{size:,}", *(f"{1000 * seconds:.0f}" for seconds in cells)])
    click.echo(format_table(["sampler", "trials", "ask, ms (median)", "longest, ms", "first, ms"], rows))


def measure(
    study: optuna.Study,
    space: dict[str, BaseDistribution],
    name: str,
    size: int,
    n_asks: int,
    sweep: GarbageSweep | None,
) -> list[float]:
    """Return the seconds of a sampler's first ask, and of so many after it."""
    study.sampler = PLAIN[name]() if name in PLAIN else make_sampler(name, 0, size, problem=Space(space))
    if isinstance(study.sampler, LearningSampler):
        study.sampler.read(study)
    seconds = []
    for _ in range(1 + n_asks):
        seconds.append(ask(study, space))
        for _ in range(CHANGES if sweep else 0):
            sweep.count_()
    return seconds


if __name__ == "__main__":
    main()

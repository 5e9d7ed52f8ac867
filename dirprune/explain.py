"""Why a study's trials ended where they did: a surrogate of each objective, and its SHAP values.

The surrogate (extremely randomised trees, Geurts et al. 2006) learns an objective from the choices of a
trial and the training images that it has seen. Trials that were stopped teach it as well, at the resource
that they reached: without them it would only know what the survivors have in common. SHAP values [Lundberg
et al. 2020, "From local explanations to global understanding with explainable AI for trees"] then say how
much each choice moved each trial, as if all had been trained in full; what a stopped one would have ended
with is what the surrogate expects.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dirprune.cost import COST_METRICS, LATENCY
from dirprune.errors import StudyError
from dirprune.files import write_atomically
from dirprune.records.record import TrialRecord

MIN_FINISHED = 10
N_TREES = 200
N_FOLDS = 5
N_SHOWN = 15  # choices in a picture, the strongest ones
N_BESIDE = 100  # trials that each one is compared with: the cost of SHAP values grows with them

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """One choice that a trial makes, and what it moved.

    Attributes:
        name: The channel group, "method", or an option by its name in the storage.
        values: The choice of each trial: numbers, or texts; None where a trial does not make it.
        attributions: SHAP value of the choice for each trial, shape (n_trials,), in the objective's unit.
    """

    name: str
    values: tuple[Any, ...]
    attributions: Floats

    @property
    def strength(self) -> float:
        """The mean of the attributions without their signs, in the objective's unit."""
        return float(np.abs(self.attributions).mean())

    @property
    def effect(self) -> str:
        """How the objective follows the choice: the rank correlation with it, or the mean of each value."""
        if _is_numeric(self.values):
            from scipy.stats import spearmanr

            made = [place for place, value in enumerate(self.values) if value is not None]
            values = np.array([float(self.values[place]) for place in made])
            attributions = self.attributions[made].round(12)
            if np.ptp(values) == 0 or np.ptp(attributions) == 0:
                return ""
            correlation = float(spearmanr(values, attributions).statistic)
            return f"{'rises' if correlation > 0 else 'falls'} with it ({correlation:+.2f})"
        means = {
            value: float(
                np.mean([a for v, a in zip(self.values, self.attributions, strict=True) if v == value])
            )
            for value in dict.fromkeys(self.values)
            if value is not None
        }
        best_first = sorted(means, key=lambda value: -means[value])
        return ", ".join(f"{value} {means[value]:+.4g}" for value in best_first)


@dataclass(frozen=True)
class Explanation:
    """What moved one objective.

    Attributes:
        metric: The objective.
        r2: Out-of-fold R2 of the surrogate on the final values of finished trials; at most 1, 0 is no better
            than their mean, and what they all have the same of is not explained at all.
        base: Mean prediction at full resource of the trials that each is compared with; a trial's prediction
            is this plus its attributions.
        trials: Numbers of the trials that are explained.
        choices: Every choice, the strongest first.
        n_finished: How many of the trials ended at full resource; the others' ends are the surrogate's guess.
    """

    metric: str
    r2: float
    base: float
    trials: tuple[int, ...]
    choices: tuple[Choice, ...]
    n_finished: int

    @property
    def of_what(self) -> str:
        """How many trials are explained, and how many of them never came to their end."""
        n_stopped = len(self.trials) - self.n_finished
        stopped = f", {n_stopped} of them by what they should have ended with" if n_stopped else ""
        return f"{len(self.trials)} trials{stopped}"

    def is_trusted(self, min_r2: float) -> bool:
        """Whether the surrogate predicts trials that it has not seen well enough to be explained."""
        return self.r2 >= min_r2


def explain(records: Sequence[TrialRecord], metrics: Iterable[str], seed: int = 0) -> list[Explanation]:
    """Explain what moved each objective.

    The dense network's trial is left out: it has chosen nothing.

    Args:
        records: The trials of one study.
        metrics: Its objectives.
        seed: Of the surrogate's trees and of the folds.
    Raises:
        StudyError: If fewer than `MIN_FINISHED` trials have finished.
    """
    told = [record for record in records if record.source != "dense" and record.curve]
    n_finished = sum(record.state == "COMPLETE" for record in told)
    if n_finished < MIN_FINISHED:
        raise StudyError(
            f"expected at least {MIN_FINISHED} finished trials beside the dense network, got {n_finished}; "
            "a surrogate of fewer explains noise: go on with --resume and more --trials"
        )
    return [
        _explain_one(_Table(told, metric in (*COST_METRICS, LATENCY)), metric, seed) for metric in metrics
    ]


class _Table:
    """Trials as rows of numbers: a column for each number chosen and for each value of each other choice.

    A cost follows from the architecture alone, so that nothing else is among its choices.
    """

    def __init__(self, records: Sequence[TrialRecord], is_cost: bool) -> None:
        self.records = records
        chosen = [dict(record.architecture) if is_cost else _list_choices(record) for record in records]
        names = list(dict.fromkeys(name for choices in chosen for name in choices))
        self.choices = {name: tuple(choices.get(name) for choices in chosen) for name in names}
        columns: list[Floats] = []
        self.places: dict[str, list[int]] = {}
        for name, values in self.choices.items():
            own = list(_encode(values))
            self.places[name] = list(range(len(columns), len(columns) + len(own)))
            columns += own
        self.columns = np.stack(columns, axis=1)
        self.full_images = max(record.last_images for record in records)

    def rows(self, metric: str) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Return inputs, values and the place of the trial of every report that has the metric."""
        inputs, values, places = [], [], []
        for place, record in enumerate(self.records):
            for images, metrics in record.curve:
                if metric in metrics and np.isfinite(metrics[metric]):
                    inputs.append([*self.columns[place], images])
                    values.append(metrics[metric])
                    places.append(place)
        return np.array(inputs), np.array(values), np.array(places)

    def at_full_resource(self) -> Floats:
        """Return the inputs of every trial as if it had been trained in full."""
        return np.column_stack([self.columns, np.full(len(self.records), self.full_images)])


def _list_choices(record: TrialRecord) -> dict[str, Any]:
    """Return a trial's choices; what a method's option may be called by name belongs to the method."""
    own = {name: value for name, value in record.options.items() if name.startswith(f"{record.method}.")}
    named = {name: value for name, value in own.items() if not _is_numeric([value])}
    method = " ".join(
        [record.method, *(f"{name.rpartition('.')[2]}={value}" for name, value in named.items())]
    )
    others = {name: value for name, value in record.options.items() if name not in named}
    return {**record.architecture, "method": method, **others}


def _explain_one(table: _Table, metric: str, seed: int) -> Explanation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that shap imports
        import shap

    inputs, values, places = table.rows(metric)
    if len(values) == 0:
        raise StudyError(f"expected reports of {metric}, got none in {len(table.records)} trials")
    surrogate = _make_surrogate(seed).fit(inputs, values)
    full = table.at_full_resource()
    # Against one another at full resource: whatever moves a trial at an early rung alone is no attribution.
    beside = np.random.default_rng(seed).permutation(full)[:N_BESIDE]
    explained = shap.TreeExplainer(surrogate, data=beside, feature_perturbation="interventional")
    attributions = np.asarray(explained.shap_values(full))
    base = float(np.ravel(explained.expected_value)[0])
    choices = [
        Choice(name, values_of, attributions[:, table.places[name]].sum(axis=1))
        for name, values_of in table.choices.items()
    ]
    return Explanation(
        metric,
        _measure_r2(table, metric, inputs, values, places, seed),
        base,
        tuple(record.number for record in table.records),
        tuple(sorted(choices, key=lambda choice: -choice.strength)),
        sum(record.state == "COMPLETE" for record in table.records),
    )


def _measure_r2(
    table: _Table, metric: str, inputs: Floats, values: Floats, places: NDArray[np.int64], seed: int
) -> float:
    """Return the R2 of finished trials' final values, each predicted by trees that never saw its trial."""
    from sklearn.metrics import r2_score
    from sklearn.model_selection import GroupKFold

    predicted = np.full(len(table.records), np.nan)
    folds = GroupKFold(min(N_FOLDS, len(set(places.tolist()))), shuffle=True, random_state=seed)
    full = table.at_full_resource()
    for seen, unseen in folds.split(inputs, values, groups=places):
        left_out = np.unique(places[unseen])
        predicted[left_out] = _make_surrogate(seed).fit(inputs[seen], values[seen]).predict(full[left_out])
    finished = [
        place
        for place, record in enumerate(table.records)
        if record.state == "COMPLETE" and np.isfinite(record.metrics.get(metric, np.nan))
    ]
    final = [table.records[place].metrics[metric] for place in finished]
    if len(finished) < 2 or np.ptp(final) == 0:  # there is nothing to explain
        return -np.inf
    return float(r2_score(final, predicted[finished]))


def _make_surrogate(seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesRegressor

    return ExtraTreesRegressor(N_TREES, min_samples_leaf=2, random_state=seed)


def _is_numeric(values: Iterable[Any]) -> bool:
    return all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    )


def _encode(values: Sequence[Any]) -> Iterable[Floats]:
    """Yield the columns of one choice; a number that a trial does not choose is the median of the others."""
    if _is_numeric(values):
        known = [float(value) for value in values if value is not None]
        middle = float(np.median(known)) if known else 0.0
        yield np.array([middle if value is None else float(value) for value in values])
        return
    for distinct in dict.fromkeys(values):
        yield np.array([float(value == distinct) for value in values])


def write_table(path: Path, explanations: Iterable[Explanation]) -> None:
    """Write a table: objective, R2, choice, strength (mean |SHAP value|, in the objective's unit), effect."""
    with write_atomically(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["objective", "r2", "choice", "mean_abs_shap", "effect"])
        for explanation in explanations:
            for choice in explanation.choices:
                row = [explanation.metric, f"{explanation.r2:.4f}", choice.name, f"{choice.strength:.6g}"]
                writer.writerow([*row, choice.effect])


def draw_beeswarm(path: Path, explanation: Explanation) -> None:
    """Draw a point for each trial and choice: where its SHAP value lies, coloured by what was chosen.

    Choices without an order, such as the method, are grey.
    """
    import shap

    shown = explanation.choices[:N_SHOWN]
    data = np.array(
        [
            [np.nan if value is None else float(value) for value in choice.values]
            if _is_numeric(choice.values)
            else [np.nan] * len(choice.values)
            for choice in shown
        ]
    ).T
    drawn = shap.Explanation(
        np.stack([choice.attributions for choice in shown], axis=1),
        base_values=explanation.base,
        data=data,
        feature_names=[choice.name for choice in shown],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of choices without numbers to colour by, and of libraries
        axes = shap.plots.beeswarm(drawn, max_display=N_SHOWN, show=False)
    axes.set_xlabel(f"effect on {explanation.metric} at full resource (SHAP value)")
    axes.set_title(f"out-of-fold R² {explanation.r2:.2f}, {explanation.of_what}", fontsize=11)
    with write_atomically(path) as temporary:
        axes.figure.savefig(temporary, dpi=130, bbox_inches="tight")
    axes.figure.clear()


def summarise(explanation: Explanation, n_choices: int = N_SHOWN) -> list[list[str]]:
    """Return the strongest choices as rows: choice, mean |SHAP value|, effect."""
    return [
        [choice.name, f"{choice.strength:,.4g}", choice.effect]
        for choice in explanation.choices[:n_choices]
        if choice.strength > 0
    ]

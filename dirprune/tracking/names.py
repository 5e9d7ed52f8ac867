"""Every name that dirprune writes to MLflow, and MLflow's limits.

Study's run (one per study), trial's runs (its children), and final runs: one for each training of a
finalist, children of its trial's run:

| tag | on | value |
|---|---|---|
| mlflow.parentRunId | trial, final | the study's run; of a final run its trial's |
| dirprune.kind | all | study, trial or finalist; double: made twice, and its user may not delete it |
| dirprune.study | all | name of the study |
| dirprune.study_id | all | the id in its study.json; with trial and repetition it finds a run again |
| dirprune.n_trials | study | total of trials to start |
| dirprune.folder | study | where its files lie, on the machines that see them |
| dirprune.trial | trial, final | number of the trial |
| dirprune.stage | final | final |
| dirprune.repetition | final | which seed, from 0 |
| dirprune.source | trial, final | dense, uniform, reference, warm-start or sampler |
| dirprune.method | trial, final | importance method; empty for the dense network |
| dirprune.front | trial, final | true or false; of a final run: whether its model stands on the final front |
| dirprune.paused | study, trial | true or false: RUNNING by name, it only waits for a driver, or at a rung |
| dirprune.not_acceptable | trial | why it may not be on the front though it is complete |
| dirprune.stopped_at | trial | training images after which it was stopped at a rung |
| dirprune.error | trial, final | why it failed, or "abandoned" |
| dirprune.model_id | trial, final | its logged model |

| parameter | on | value |
|---|---|---|
| seed, objectives | study | as given |
| margin.METRIC | study | relative error of the objective's values, where they have one |
| reference.METRIC, dense.METRIC | study | reference point of the hypervolume, costs of the dense network |
| each entry of the study's description | study | network, data, loss, ... |
| source, method, architecture | trial, final | architecture as in 8-9-36-17 |
| channels.GROUP | trial, final | kept channels of the group |
| each option | trial, final | options of the method, hyperparameters of fine-tuning |

| metric | on | step |
|---|---|---|
| hypervolume, front_size | study | number of finished trials |
| n_complete, n_stopped, n_failed, n_running, n_paused, n_infeasible | study | number of finished trials |
| final.TRIAL.METRIC, final.TRIAL.METRIC_std: over a finalist's seeds | study | number of its seeds |
| final_front_size | study | number of finished trainings of finalists |
| every reported metric | trial, final | training images seen |
| macs, parameters | trial, final | 0 |
| wall_time_s and what is measured at the end, test_* among it | trial, final | training images seen |

| status | when |
|---|---|
| RUNNING | the trial runs, is paused at a rung, or waits for a driver that continues the study |
| FINISHED | it ran to its full resource; the study: all is done |
| KILLED | it was stopped at a rung, or abandoned |
| FAILED | it raised, or gave no finite objective; the study: see `StudyObserver.study_failed` |
"""

from __future__ import annotations

import re

EXPERIMENT = "dirprune"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # which of its two faces the UI shows

PARENT = "mlflow.parentRunId"
KIND = "dirprune.kind"
STUDY = "dirprune.study"
STUDY_ID = "dirprune.study_id"
N_TRIALS = "dirprune.n_trials"
FOLDER = "dirprune.folder"
TRIAL = "dirprune.trial"
STAGE = "dirprune.stage"
REPETITION = "dirprune.repetition"
SOURCE = "dirprune.source"
METHOD = "dirprune.method"
FRONT = "dirprune.front"
PAUSED = "dirprune.paused"
NOT_ACCEPTABLE = "dirprune.not_acceptable"
STOPPED_AT = "dirprune.stopped_at"
ERROR = "dirprune.error"
MODEL_ID = "dirprune.model_id"

COUNTS = {
    "COMPLETE": "n_complete",
    "PRUNED": "n_stopped",
    "FAIL": "n_failed",
    "RUNNING": "n_running",
    "PAUSED": "n_paused",
    "INFEASIBLE": "n_infeasible",
}
CHANGING_COUNTS = frozenset(COUNTS.values()) - {"n_complete"}  # at one step they change, and change back
FINAL = "final"
DOUBLE = "double"
MODEL = "model"

MAX_NAME = 250
MAX_PARAMETER = 6000
MAX_TAG = 5000  # what servers before 3.0 take; newer ones take 8000
MAX_PER_BATCH = 1000  # metrics, parameters and tags together
MAX_PARAMETERS_PER_BATCH = 100
MAX_TAGS_PER_BATCH = 100


def clean_name(name: str) -> str:
    """Return `name` as MLflow takes it: characters other than it allows become underscores."""
    return re.sub(r"[^\w\-./ ]", "_", name, flags=re.ASCII).strip("/. ")[:MAX_NAME] or "_"


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of `text`; what was cut ends in an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."

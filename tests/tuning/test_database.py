"""Whatever fails in a database of trials is said in one line that names it, and nothing is lost."""

from __future__ import annotations

import re
import sqlite3
from contextlib import ExitStack, closing, contextmanager

import optuna
import pytest

from dirprune.errors import StorageError
from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage
from dirprune.tuning.options import RunOptions
from dirprune.tuning.run import run_study
from tests.integration.toy_study import spec


@contextmanager
def held_by_another(path):
    """Hold a database so that nobody else can read or write it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        yield
        holder.execute("ROLLBACK")


@pytest.mark.parametrize(
    "use",
    [
        lambda study, trial: study.get_trials(deepcopy=False),
        lambda study, trial: storage.read_trial(study, trial.number),
        lambda study, trial: trial.set_user_attr("source", "dense"),
        lambda study, trial: trial.suggest_float("width", 0, 1),
        lambda study, trial: study.tell(trial, 0.5),
        lambda study, trial: study.enqueue_trial({"width": 0.5}),
        lambda study, trial: optuna.load_study(storage=study._storage, study_name="other"),
    ],
)
def test_failure_is_one_line_and_the_study_is_as_it_was(tmp_path, use):
    place = f"sqlite:///{tmp_path}/trials.db"
    opened = storage.open_storage(StudyFolder(tmp_path), f"{place}?timeout=0.05")
    study = optuna.create_study(storage=opened, study_name="toy")
    trial = study.ask()
    with held_by_another(tmp_path / "trials.db"):
        said = f"cannot read or write the trials in {place} (OperationalError: database is locked)"
        with pytest.raises(StorageError, match=f"^{re.escape(said)}$"):
            use(study, trial)
    (again,) = study.get_trials()
    assert again.state == optuna.trial.TrialState.RUNNING
    study.tell(trial, 0.5)
    assert study.best_value == 0.5


def test_database_that_is_lost_before_the_first_trial_says_how_to_go_on(tmp_path):
    url = f"sqlite:///{tmp_path}/trials.db"
    options = RunOptions(output=tmp_path / "output", storage_url=f"{url}?timeout=0.05")
    with ExitStack() as stack:

        def lose(line):
            if line.startswith("sampler "):  # chosen when the study is in the database
                stack.enter_context(held_by_another(tmp_path / "trials.db"))

        said = (
            f"cannot read or write the trials in {url} (OperationalError: database is locked); "
            "when it answers again, the same command with --resume goes on"
        )
        with pytest.raises(StorageError, match=f"^{re.escape(said)}$"):
            run_study(spec, options, say=lose)

"""The journal: what Optuna reads from it, what a batch leaves when its driver dies, and a full disk."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dirprune.errors import StudyError
from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage
from dirprune.tuning.journal import StudyJournal


def open_study(path: Path) -> optuna.Study:
    return optuna.create_study(storage=storage.JournalStorage(path), study_name="s", directions=["minimize"])


def read(path: Path) -> list[optuna.trial.FrozenTrial]:
    """Read the trials with Optuna's own journal, as another process does."""
    return optuna.load_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(path))), study_name="s"
    ).get_trials()


def run_trial(study: optuna.Study) -> None:
    trial = study.ask()
    with storage.write_together(trial):
        for number in range(5):
            trial.suggest_int(f"kept/{number}", 1, 16)
        trial.set_user_attr("source", "sampler")
    with storage.write_together(trial), storage.write_together(trial):
        study.tell(trial, trial.params["kept/0"])


def test_optuna_reads_of_batches_what_their_writer_knows(tmp_path):
    study = open_study(tmp_path / "journal")
    for _ in range(3):
        run_trial(study)
    known = [trial for trial in study.get_trials() if trial.state == TrialState.COMPLETE]
    assert len(known) == 3
    assert read(tmp_path / "journal") == known
    assert open_again(tmp_path / "journal").get_trials() == known


def open_again(path: Path) -> optuna.Study:
    return optuna.load_study(storage=storage.JournalStorage(path), study_name="s")


def test_batch_reaches_the_disk_in_one_append(tmp_path, monkeypatch):
    study = open_study(tmp_path / "journal")
    sizes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: sizes.append(len(data)) or write(fd, data))
    run_trial(study)
    assert len(sizes) == 3  # asked, configured, told


def test_nothing_of_an_open_batch_is_on_disk_but_its_writer_sees_it(tmp_path):
    study = open_study(tmp_path / "journal")
    trial = study.ask()
    with storage.write_together(trial):
        trial.suggest_int("kept/0", 1, 16)
        assert storage.read_trial(study, 0).params == trial.params
        assert read(tmp_path / "journal")[0].params == {}
    assert read(tmp_path / "journal")[0].params == trial.params


def test_batch_of_one_who_raised_is_kept(tmp_path):
    study = open_study(tmp_path / "journal")
    trial = study.ask()

    def interrupted() -> None:
        with storage.write_together(trial):
            trial.set_user_attr("source", "sampler")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read(tmp_path / "journal")[0].user_attrs == {"source": "sampler"}
    study.tell(trial, 1.0)
    assert read(tmp_path / "journal") == study.get_trials()


@pytest.mark.parametrize("n_lost", [1, 40, 200, 100_000])
def test_batch_that_was_cut_off_leaves_its_beginning(tmp_path, n_lost):
    folder = StudyFolder(tmp_path)
    study = open_study(folder.journal)
    trial = study.ask()
    n_before = folder.journal.stat().st_size
    with storage.write_together(trial):
        for number in range(3000):
            trial.set_user_attr(f"attribute {number}", number)
    n_bytes = folder.journal.stat().st_size
    os.truncate(folder.journal, n_bytes - n_lost)
    storage.heal_journal(folder)
    (found,) = read(folder.journal)
    assert list(found.user_attrs.values()) == list(range(len(found.user_attrs)))
    assert 0 < 3000 - len(found.user_attrs) <= n_lost // 30 + 1
    assert folder.journal.stat().st_size > n_before
    open_again(folder.journal).tell(0, 1.0)
    assert read(folder.journal)[0].state == TrialState.COMPLETE


def test_journal_that_is_one_unfinished_line_is_emptied(tmp_path):
    folder = StudyFolder(tmp_path)
    folder.journal.write_bytes(b"x" * 200_000)
    storage.heal_journal(folder)
    assert folder.journal.read_bytes() == b""


@pytest.mark.parametrize("line", [b"\x80\x04\x95 a pickle\n", b"[]\n", b"{}\n"])
def test_line_that_is_no_operation_is_named(tmp_path, line):
    open_study(tmp_path / "journal")
    n_lines = len((tmp_path / "journal").read_bytes().splitlines())
    with (tmp_path / "journal").open("ab") as file:
        file.write(line)
    with pytest.raises(
        StudyError, match=rf"^expected one operation .* got something else in line {n_lines + 1};"
    ):
        optuna.load_study(storage=storage.JournalStorage(tmp_path / "journal"), study_name="s")


def test_full_disk_leaves_the_journal_whole(tmp_path, monkeypatch):
    study = open_study(tmp_path / "journal")
    trial = study.ask()
    before = (tmp_path / "journal").read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(OSError, match="is the disk full"):
        study.tell(trial, 1.0)
    monkeypatch.undo()
    assert (tmp_path / "journal").read_bytes() == before


def test_second_writer_is_noticed(tmp_path):
    study = open_study(tmp_path / "journal")
    trial = study.ask()

    def write_with_another() -> None:
        with storage.write_together(trial):
            trial.set_user_attr("source", "sampler")
            with (tmp_path / "journal").open("ab") as other:
                other.write(b"{}\n")

    with pytest.raises(StudyError, match=r"expected to be alone in writing .*journal, got 3 bytes"):
        write_with_another()


def test_journal_reads_from_the_start_again_when_asked(tmp_path):
    study = open_study(tmp_path / "journal")
    run_trial(study)
    journal = StudyJournal(tmp_path / "journal")
    everything = list(journal.read_logs(0))
    assert list(journal.read_logs(len(everything))) == []
    assert list(journal.read_logs(2)) == everything[2:]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["enqueue", "ask", "complete", "fail", "look"]), max_size=25))
def test_trials_that_wait_or_run_are_those_that_optuna_finds(deeds):
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(Path(folder) / "journal")
        running: list[optuna.trial.Trial] = []
        for deed in deeds:
            if deed == "enqueue":
                study.enqueue_trial({})
            elif deed == "ask":
                running.append(study.ask())
            elif deed == "look":
                study.get_trials(states=(TrialState.WAITING,))
            elif running:
                state = TrialState.COMPLETE if deed == "complete" else TrialState.FAIL
                study.tell(running.pop(0), 1.0 if deed == "complete" else None, state=state)
        for states in [
            (TrialState.WAITING,),
            (TrialState.RUNNING,),
            (TrialState.RUNNING, TrialState.WAITING),
        ]:
            expected = [trial for trial in read(Path(folder) / "journal") if trial.state in states]
            assert study.get_trials(states=states) == expected

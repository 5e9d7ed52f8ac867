"""The accounts against the design's state table, on a real journal file and without Ray."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from dirprune.cost import CostModel
from dirprune.errors import StudyError
from dirprune.files import write_json
from dirprune.networks import create_network
from dirprune.records.ending import EndingWriter, read_ending
from dirprune.records.events import EventLog, read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.study.floor import Floor
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudyObserver, StudySummary
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.tracing import find_groups
from dirprune.tuning import storage
from dirprune.tuning.ledger import MAX_FAILURES_IN_A_ROW, Ledger
from dirprune.tuning.samplers import make_sampler
from dirprune.tuning.samplers.known import KnownTrials

EXAMPLE = torch.zeros(2, 1, 28, 28)
RUNGS = (0, 100)
BY_ACCURACY = {"objectives": (Objective("val_accuracy", "maximize"),)}


class Recorder(StudyObserver):
    """Keeps what an observer hears."""

    def __init__(self) -> None:
        self.states: dict[int, list[str]] = {}
        self.volumes: list[float] = []

    def trial_changed(self, record):
        self.states.setdefault(record.number, []).append(record.state)

    def front_changed(self, front, hypervolume, counts):
        self.volumes.append(hypervolume)


def make_spec(**changes) -> StudySpec:
    given = {"name": "accounts", "network": "lenet5", "data": "digits", "trials": 8, **changes}
    return StudySpec(**given)


def open_ledger(root: Path, observers=(), warm_starts=(), **changes) -> Ledger:
    """Open the accounts as a new driver does."""
    spec = make_spec(**changes)
    folder = StudyFolder(root / spec.name)
    folder.root.mkdir(parents=True, exist_ok=True)
    network = create_network("lenet5").eval()
    grouping = find_groups(network, EXAMPLE)
    costs = CostModel(network, grouping, EXAMPLE)
    dense = {name: float(value) for name, value in costs.costs(grouping.n_channels).as_dict().items()}
    summary = StudySummary(
        name=spec.name,
        study_id="accounts",
        folder=folder,
        objectives=spec.objectives,
        reference_point={"val_accuracy": 0.1, "macs": dense["macs"]},
        dense_costs=dense,
        n_channels=grouping.n_channels,
        n_trials=spec.trials,
        seed=0,
        floor=Floor.resolve(spec.min_val_accuracy, spec.objectives, {"val_accuracy": 0.97}),
    )
    study = open_optuna(folder, spec.objectives)
    study.sampler = make_sampler("tpe", 0, len(study.get_trials(deepcopy=False)))
    return Ledger(spec, grouping, costs, folder, study, summary, RUNGS, observers, warm_starts)


def open_optuna(folder: StudyFolder, objectives: Sequence[Objective] = ()) -> optuna.Study:
    """Open the study as another process does, with a study.json beside it as a run leaves it."""
    if folder.study_json.exists():
        payload = storage.read_study_json(folder)
        storage.heal_journal(folder)
        return storage.load_study(folder, payload)
    payload = {
        "optuna_study": "accounts",
        "storage": "journal",
        "description": {"objectives": [[one.metric, one.direction] for one in objectives]},
    }
    study = storage.create_study(folder, payload)
    write_json(folder.study_json, payload, storage.STUDY_SCHEMA)
    return study


def metrics_of(ledger: Ledger, configuration, accuracy: float) -> dict[str, float]:
    return {"val_accuracy": accuracy, **ledger.costs.costs(configuration.architecture).as_dict()}


def told(ledger: Ledger, number: int) -> optuna.trial.FrozenTrial:
    """Return a trial as another process reads it from the journal."""
    return open_optuna(ledger.folder).get_trials(deepcopy=False)[number]


def test_first_trials_are_the_dense_network_and_uniform_keep_ratios(tmp_path):
    ledger = open_ledger(tmp_path)
    first = [ledger.next_configuration() for _ in range(4)]
    assert [configuration.source for configuration in first] == ["dense", "uniform", "uniform", "uniform"]
    assert str(first[0].architecture) == "10-20-100-25"
    assert str(first[2].architecture) == "5-10-50-12"
    assert [configuration.number for configuration in first] == [0, 1, 2, 3]
    chosen = [(configuration.method, configuration.method_options) for configuration in first]
    assert chosen == [("magnitude", {"norm": "l1"})] * 4


def test_record_of_the_dense_network_has_no_method_and_its_configuration_stays_as_it_was(tmp_path):
    ledger = open_ledger(tmp_path)
    dense, uniform = (ledger.next_configuration() for _ in range(2))
    for records in (ledger.records, storage.read_records(ledger.folder)):
        assert [(record.method, record.options) for record in records] == [
            ("", {}),
            ("magnitude", {"magnitude.norm": "l1"}),
        ]
    again = open_ledger(tmp_path)
    assert [again.next_configuration() for _ in range(2)] == [dense, uniform]


def test_trial_at_full_resource_is_told_complete_with_its_objectives(tmp_path):
    recorder = Recorder()
    ledger = open_ledger(tmp_path, [recorder])
    configuration = ledger.next_configuration()
    ledger.completed(0, metrics_of(ledger, configuration, 0.99))
    trial = told(ledger, 0)
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [0.99, 498_750.0]
    assert recorder.states[0] == ["RUNNING", "COMPLETE"]
    assert ledger.records[0].is_front


def test_stopped_trial_is_not_told_as_complete(tmp_path):
    ledger = open_ledger(tmp_path)
    configuration = ledger.next_configuration()
    EventLog(ledger.folder.events(0), "attempt").append("started", resumed_from=None)
    ledger.reported(0, 100, metrics_of(ledger, configuration, 0.5))
    ledger.halted(0, 100)
    assert replay(read_events(ledger.folder.events(0))).stopped == {"images": 100}
    trial = told(ledger, 0)
    assert trial.state == TrialState.PRUNED
    assert trial.values is None
    assert trial.user_attrs["stopped_at"] == 100
    assert trial.user_attrs["rung:100"] == [-0.5, 498_750.0]
    assert ledger.records[0].reason == "stopped at 100 images"


def test_failed_trial_keeps_the_reason_of_its_events(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.next_configuration()
    log = EventLog(ledger.folder.events(0), "attempt")
    log.append("started", resumed_from=None)
    log.append("failed", reason="ValueError: no")
    ledger.failed(0)
    assert told(ledger, 0).state == TrialState.FAIL
    assert told(ledger, 0).user_attrs["reason"] == "ValueError: no"


def test_trial_that_lost_its_worker_too_often_fails_with_that_reason(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.next_configuration()
    ledger.failed(0)
    assert "worker was lost" in told(ledger, 0).user_attrs["reason"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_objective_that_is_not_finite_is_a_failure_and_no_value(tmp_path, value):
    ledger = open_ledger(tmp_path)
    configuration = ledger.next_configuration()
    ledger.completed(0, metrics_of(ledger, configuration, value))
    assert told(ledger, 0).state == TrialState.FAIL
    assert "not all finite" in told(ledger, 0).user_attrs["reason"]


def test_driver_that_vanished_leaves_adoptable_trials_that_the_next_one_gets_first(tmp_path):
    first = open_ledger(tmp_path)
    handed_out = [first.next_configuration() for _ in range(3)]
    first.completed(0, metrics_of(first, handed_out[0], 0.99))
    assert told(first, 1).user_attrs["adoptable"] is True
    recorder = Recorder()
    second = open_ledger(tmp_path, [recorder])
    second.start()
    again = [second.next_configuration() for _ in range(3)]
    assert [configuration.number for configuration in again] == [1, 2, 3]
    assert again[0] == handed_out[1]
    assert again[1] == handed_out[2]
    assert recorder.states[0] == ["COMPLETE"]


def test_first_ask_of_a_resumed_study_does_not_read_its_trials_again(tmp_path, monkeypatch):
    first = open_ledger(tmp_path, trials=8)
    while (configuration := first.next_configuration()) is not None:
        first.completed(configuration.number, metrics_of(first, configuration, 0.9))
    resumed = open_ledger(tmp_path, trials=9)
    taken, take = set(), KnownTrials.take
    monkeypatch.setattr(
        KnownTrials, "take", lambda known, trial: taken.add(trial.number) or take(known, trial)
    )
    assert resumed.next_configuration().number == 8
    assert taken == {8}


def test_resumed_study_starts_as_many_trials_in_all_as_asked(tmp_path):
    first = open_ledger(tmp_path, trials=5)
    for _ in range(2):
        configuration = first.next_configuration()
        first.completed(configuration.number, metrics_of(first, configuration, 0.9))
    first.next_configuration()
    second = open_ledger(tmp_path, trials=5)
    numbers = []
    while (configuration := second.next_configuration()) is not None:
        numbers.append(configuration.number)
        second.completed(configuration.number, metrics_of(second, configuration, 0.9))
    assert numbers == [2, 3, 4]
    assert not second.has_work
    assert [record.state for record in second.records] == ["COMPLETE"] * 5


def test_rungs_know_after_a_restart_what_an_earlier_driver_heard(tmp_path):
    first = open_ledger(tmp_path, trials=20)
    for accuracy in (0.9, 0.91, 0.92, 0.93):
        configuration = first.next_configuration()
        metrics = {**metrics_of(first, configuration, accuracy), "macs": 1000.0}
        assert first.reported(configuration.number, 100, metrics)
        first.completed(configuration.number, metrics)
    second = open_ledger(tmp_path, trials=20)
    configuration = second.next_configuration()
    worse = {**metrics_of(second, configuration, 0.5), "macs": 2000.0}
    assert not second.reported(configuration.number, 100, worse)


def test_resource_between_rungs_never_stops_a_trial(tmp_path):
    ledger = open_ledger(tmp_path, trials=20)
    for _ in range(6):
        configuration = ledger.next_configuration()
        assert ledger.reported(configuration.number, 50, metrics_of(ledger, configuration, 0.1))


def test_infeasible_architecture_never_starts_and_does_not_count(tmp_path):
    recorder = Recorder()
    ledger = open_ledger(tmp_path, [recorder], limits={"macs": 150_000.0}, trials=6)
    configurations = []
    while (configuration := ledger.next_configuration()) is not None:
        configurations.append(configuration)
    assert len(configurations) == 6
    dense, *others = configurations
    assert dense.source == "dense"
    for configuration in others:
        assert ledger.costs.costs(configuration.architecture).macs <= 150_000
    refused = [trial for trial in open_optuna(ledger.folder).get_trials() if storage.is_infeasible(trial)]
    assert refused
    assert all(trial.state == TrialState.PRUNED and trial.constraints["macs"] > 0 for trial in refused)
    assert ledger.counts["INFEASIBLE"] == len(refused)
    assert open_ledger(tmp_path, limits={"macs": 150_000.0}, trials=6).counts["INFEASIBLE"] == len(refused)
    assert not {trial.number for trial in refused} & set(recorder.states)
    assert not {trial.number for trial in refused} & {record.number for record in ledger.records}


def test_a_limit_that_hardly_anything_meets_refuses_no_trial_of_the_sampler(tmp_path):
    limits = {"macs": 22_000.0}
    ledger = open_ledger(tmp_path, limits=limits, trials=8, space=SearchSpace(min_keep_ratio=0.1))
    configurations = list(iter(ledger.next_configuration, None))
    assert [configuration.source for configuration in configurations] == ["dense"] + 7 * ["sampler"]
    assert ledger.counts["INFEASIBLE"] == 3  # the uniform ones


def test_trial_below_the_least_accuracy_is_complete_but_not_on_the_front(tmp_path):
    ledger = open_ledger(tmp_path, min_val_accuracy="dense-0.02")
    dense, low, high = (ledger.next_configuration() for _ in range(3))
    for configuration, accuracy in ((dense, 0.97), (low, 0.90), (high, 0.96)):
        ledger.completed(configuration.number, metrics_of(ledger, configuration, accuracy))
    assert told(ledger, low.number).state == TrialState.COMPLETE
    assert told(ledger, low.number).constraints["val_accuracy"] == pytest.approx(0.05)
    for records in (ledger.records, open_ledger(tmp_path, min_val_accuracy="dense-0.02").records):
        assert [record.is_front for record in records] == [True, False, True]
        assert records[low.number].reason == "val_accuracy is 0.0500 below the least"


def test_dense_network_above_a_limit_runs_but_is_not_on_the_front(tmp_path):
    limits = {"macs": 150_000.0, "parameters": 40_000.0}
    ledger = open_ledger(tmp_path, limits=limits)
    dense, small = (ledger.next_configuration() for _ in range(2))
    assert (dense.source, str(small.architecture)) == ("dense", "3-6-30-8")
    ledger.completed(dense.number, metrics_of(ledger, dense, 0.97))
    ledger.completed(small.number, metrics_of(ledger, small, 0.96))
    assert told(ledger, dense.number).state == TrialState.COMPLETE
    reason = "macs is 348,750 above the limit; parameters is 225 above the limit"
    for records in (ledger.records, open_ledger(tmp_path, limits=limits).records):
        first, second = (record for record in records if record.state == "COMPLETE")
        assert (first.is_front, first.is_acceptable, first.reason) == (False, False, reason)
        assert (second.is_front, second.is_acceptable, second.reason) == (True, True, None)


def test_dense_network_above_a_limit_takes_nothing_from_the_others_where_it_is_the_best(tmp_path):
    recorder = Recorder()
    given = {**BY_ACCURACY, "limits": {"macs": 150_000.0}}
    ledger = open_ledger(tmp_path, [recorder], **given)
    dense, *others = (ledger.next_configuration() for _ in range(3))
    for configuration, accuracy in ((dense, 0.97), (others[0], 0.95), (others[1], 0.96)):
        ledger.folder.model_dir(configuration.number).mkdir(parents=True)
        ledger.completed(configuration.number, metrics_of(ledger, configuration, accuracy))
    assert recorder.volumes == pytest.approx([0.0, 0.85, 0.86])
    for again in (ledger, open_ledger(tmp_path, **given)):
        assert [record.number for record in again.records if record.is_front] == [others[1].number]
        assert again.hypervolume == pytest.approx(0.86)
    assert [path.name for path in ledger.folder.models_dir.iterdir()] == [str(others[1].number)]


@pytest.mark.parametrize("is_resumed", [False, True])
def test_dense_network_above_a_limit_takes_no_place_at_a_rung(tmp_path, is_resumed):
    given = {**BY_ACCURACY, "limits": {"macs": 150_000.0}, "trials": 20}
    ledger = open_ledger(tmp_path, **given)
    dense = ledger.next_configuration()
    ledger.reported(dense.number, 100, metrics_of(ledger, dense, 0.97))
    if is_resumed:
        ledger = open_ledger(tmp_path, **given)
        assert ledger.next_configuration() == dense
    for accuracy in (0.5, 0.6, 0.7, 0.8, 0.65):
        configuration = ledger.next_configuration()
        goes_on = ledger.reported(configuration.number, 100, metrics_of(ledger, configuration, accuracy))
    assert configuration.source == "sampler"
    assert goes_on  # the third of five; it would be the fourth of six


def test_study_ends_by_itself_after_failures_in_a_row_and_says_why(tmp_path):
    told = []

    class Listener(StudyObserver):
        def study_failed(self, reason):
            told.append(reason)

        def study_ended(self, records, interrupted):
            told.append("ended")

    ledger = open_ledger(tmp_path, [Listener()], trials=50)
    for _ in range(MAX_FAILURES_IN_A_ROW):
        configuration = ledger.next_configuration()
        EventLog(ledger.folder.events(configuration.number), "a").append("started", resumed_from=None)
        ledger.failed(configuration.number, "RuntimeError: broken")
    assert ledger.next_configuration() is None
    assert "10 trials in a row failed, the last one with: RuntimeError: broken" in ledger.end_reason
    ledger.end(interrupted=False)
    assert told == [ledger.end_reason, "ended"]


def fail_all(ledger: Ledger, n_pruned: int, reason: str = "RuntimeError: broken") -> None:
    """Complete the dense network, and let so many pruned ones fail."""
    for number in range(1 + n_pruned):
        configuration = ledger.next_configuration()
        if configuration.source == "dense":
            ledger.completed(number, metrics_of(ledger, configuration, 0.99))
        else:
            ledger.failed(configuration.number, reason)


def test_study_none_of_whose_pruned_trials_finished_has_failed_and_goes_on_when_one_does(tmp_path):
    ledger = open_ledger(tmp_path, [EndingWriter()], trials=4)
    ledger.start()
    fail_all(ledger, 3)
    assert not ledger.has_work
    ledger.end(interrupted=False)
    expected = "no pruned trial has finished: all 3 trials failed: RuntimeError: broken"
    assert (ledger.fruitless, ledger.end_reason) == (expected, "")
    assert read_ending(ledger.folder) == expected
    again = open_ledger(tmp_path, [EndingWriter()], trials=5)
    again.start()
    configuration = again.next_configuration()
    again.completed(configuration.number, metrics_of(again, configuration, 0.9))
    again.end(interrupted=False)
    assert (again.fruitless, read_ending(again.folder)) == ("", "")


def test_study_that_is_interrupted_has_not_failed_yet(tmp_path):
    ledger = open_ledger(tmp_path, [EndingWriter()], trials=50)
    ledger.start()
    fail_all(ledger, 3)
    ledger.next_configuration()
    ledger.end(interrupted=True)
    assert (ledger.fruitless, read_ending(ledger.folder)) == ("", "")


def test_study_that_failures_in_a_row_end_says_that_alone(tmp_path):
    ledger = open_ledger(tmp_path, trials=50)
    fail_all(ledger, MAX_FAILURES_IN_A_ROW)
    ledger.end(interrupted=False)
    assert "10 trials in a row failed" in ledger.end_reason
    assert ledger.fruitless == ""


def test_abandoned_trials_fail_with_that_reason(tmp_path):
    ledger = open_ledger(tmp_path)
    configuration = ledger.next_configuration()
    ledger.completed(0, metrics_of(ledger, configuration, 0.99))
    ledger.next_configuration()
    assert storage.abandon(ledger.folder) == [1]
    states = [record.state for record in storage.read_records(ledger.folder)]
    assert states == ["COMPLETE", "FAIL"]
    assert storage.read_records(ledger.folder)[1].reason == "abandoned"


def test_a_study_whose_last_trials_are_abandoned_has_not_ended_by_itself(tmp_path):
    ledger = open_ledger(tmp_path, [EndingWriter()])
    ledger.start()
    ledger.next_configuration()
    ledger.end_reason = "no room is left"
    ledger.end(interrupted=False)
    assert read_ending(ledger.folder) == "no room is left"
    for _ in range(2):
        storage.abandon(ledger.folder)
        assert read_ending(ledger.folder) == ""


def test_models_of_beaten_trials_are_removed_and_those_of_the_front_stay(tmp_path):
    ledger = open_ledger(tmp_path)
    configurations = [ledger.next_configuration() for _ in range(3)]
    for configuration in configurations:
        ledger.folder.model_dir(configuration.number).mkdir(parents=True)
    ledger.completed(0, metrics_of(ledger, configurations[0], 0.99))
    ledger.completed(2, metrics_of(ledger, configurations[2], 0.98))
    ledger.completed(1, metrics_of(ledger, configurations[1], 0.97))
    assert [record.is_front for record in ledger.records] == [True, False, True]
    assert ledger.folder.model_dir(0).exists()
    assert not ledger.folder.model_dir(1).exists()
    assert ledger.folder.model_dir(2).exists()


def test_hypervolume_never_falls_and_costs_count_as_fractions_of_the_dense_network(tmp_path):
    recorder = Recorder()
    ledger = open_ledger(tmp_path, [recorder])
    for accuracy in (0.99, 0.95, 0.9):
        configuration = ledger.next_configuration()
        ledger.completed(configuration.number, metrics_of(ledger, configuration, accuracy))
    assert recorder.volumes[0] == 0.0  # dense cost does not strictly dominate the reference
    assert recorder.volumes == sorted(recorder.volumes)
    # 8-15-75-19 has 14,400*8 + 1,600*8*15 + 16*15*75 + 75*19 + 19*10 = 326,815 MACs
    assert recorder.volumes[1] == pytest.approx((0.95 - 0.1) * (1 - 326_815 / 498_750))
    assert recorder.volumes[2] > recorder.volumes[1]


@pytest.mark.slow
def test_second_driver_is_refused_with_the_first_ones_process(tmp_path):
    folder = StudyFolder(tmp_path)
    with storage.hold_study(folder):
        code = (
            "import sys; from pathlib import Path; from dirprune.records.folder import StudyFolder;"
            "from dirprune.tuning import storage\n"
            "try:\n  with storage.hold_study(StudyFolder(Path(sys.argv[1]))): pass\n"
            "except Exception as e: print(e)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert f"by process {os.getpid()} on {socket.gethostname()}; wait for it" in done.stdout
    with storage.hold_study(folder):
        pass


class CrashError(Exception):
    """Stands for the end of the driver between two writes."""


def raise_crash(*_, **__):
    raise CrashError


def crash_at_attribute(monkeypatch, name: str) -> None:
    """Let the driver end instead of writing an attribute of any trial but the dense one."""
    write = optuna.trial.Trial.set_user_attr

    def crash(trial, key, value):
        if key == name and trial.number > 0:
            raise CrashError
        write(trial, key, value)

    monkeypatch.setattr(optuna.trial.Trial, "set_user_attr", crash)


@pytest.mark.parametrize(
    "attribute", [storage.COSTS, storage.INFEASIBLE, storage.CONFIGURATION, storage.ADOPTABLE]
)
def test_driver_that_vanishes_while_it_chooses_lets_nothing_infeasible_run(tmp_path, monkeypatch, attribute):
    changes = {"limits": {"macs": 60_000.0}, "trials": 4}
    first = open_ledger(tmp_path, **changes)
    with monkeypatch.context() as patch:
        crash_at_attribute(patch, attribute)
        with pytest.raises(CrashError):
            list(iter(first.next_configuration, None))
    second = open_ledger(tmp_path, **changes)
    configurations = []
    while (configuration := second.next_configuration()) is not None:
        configurations.append(configuration)
        second.completed(configuration.number, metrics_of(second, configuration, 0.9))
    assert len(configurations) == 4
    assert all(
        second.costs.costs(c.architecture).macs <= 60_000 for c in configurations if c.source != "dense"
    )
    states = [trial.state for trial in open_optuna(second.folder).get_trials()]
    assert TrialState.RUNNING not in states
    assert not second.has_work


def test_driver_that_vanishes_while_it_tells_leaves_no_trace_of_that_ending(tmp_path, monkeypatch):
    first = open_ledger(tmp_path)
    configuration = first.next_configuration()
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", raise_crash)
        with pytest.raises(CrashError):
            first.halted(0, 100)
    second = open_ledger(tmp_path)
    assert second.next_configuration() == configuration
    assert told(second, 0).user_attrs["adoptable"] is True
    second.completed(0, metrics_of(second, configuration, 0.9))
    assert second.records[0].reason is None


def test_ctrl_c_between_telling_and_noting_is_no_difference_to_the_views(tmp_path, monkeypatch):
    class Last(StudyObserver):
        def study_ended(self, records, interrupted):
            self.states = [record.state for record in records]

    last = Last()
    ledger = open_ledger(tmp_path, [last])
    dense, uniform = ledger.next_configuration(), ledger.next_configuration()
    ledger.completed(0, metrics_of(ledger, dense, 0.9))
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_refresh", raise_crash)
        with pytest.raises(CrashError):
            ledger.completed(1, metrics_of(ledger, uniform, 0.9))
    ledger.end(interrupted=True)
    assert last.states == ["COMPLETE"] * 2
    assert ledger.hypervolume > 0


def test_journal_with_a_line_cut_short_is_read_and_written_on(tmp_path):
    first = open_ledger(tmp_path)
    configuration = first.next_configuration()
    first.completed(0, metrics_of(first, configuration, 0.9))
    whole = first.folder.journal.read_bytes()
    first.folder.journal.write_bytes(whole + b'{"op_code": 5, "worker_id": "half a li')
    assert [record.state for record in storage.read_records(first.folder)] == ["COMPLETE"]
    second = open_ledger(tmp_path)
    configuration = second.next_configuration()
    second.completed(1, metrics_of(second, configuration, 0.8))
    assert [record.state for record in storage.read_records(first.folder)] == ["COMPLETE", "COMPLETE"]


def test_reading_a_study_writes_nothing(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.next_configuration()
    before = ledger.folder.journal.read_bytes()
    storage.read_records(ledger.folder)
    assert ledger.folder.journal.read_bytes() == before
    ledger.folder.journal.unlink()
    with pytest.raises(StudyError, match=r"expected the trials of study accounts in .*, found no file"):
        storage.read_records(ledger.folder)
    assert not ledger.folder.journal.exists()


def test_study_is_not_continued_in_another_storage(tmp_path):
    ledger = open_ledger(tmp_path)
    payload = storage.read_study_json(ledger.folder)
    with pytest.raises(StudyError, match=r"are kept in journal, got sqlite:///other\.db"):
        storage.load_study(ledger.folder, payload, "sqlite:///other.db")
    elsewhere = {**payload, "storage": "postgresql://host/db"}
    with pytest.raises(StudyError, match=r"are kept in postgresql://host/db, got journal"):
        storage.load_study(ledger.folder, elsewhere)


def test_password_of_a_database_is_never_described():
    assert storage.describe_url("postgresql://me:secret@host:5432/db") == "postgresql://host:5432/db"
    for url in (
        "://host/db?user=me&password=secret",
        "://host/db?password=x@secret",
        "://me:secret?@host/db",
    ):
        assert "secret" not in storage.describe_url(f"postgresql{url}")
    with pytest.raises(StudyError, match="expected an Optuna storage at nonsense://host/db, got") as caught:
        storage.open_storage(StudyFolder(Path("nowhere")), "nonsense://me:secret@host/db")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "url"),
    [
        ("postgresql://host/db", "postgresql://me:pa#ss@host/db"),
        ("postgresql://...", "postgresql://me:pa#ss@host/db"),
        ("postgresql://...", "postgresql://host/db?user=me@corp&password=x"),
        ("sqlite://lab/t.db", "sqlite:////home/me@lab/t.db"),
        ("sqlite:////home/me@lab/t.db", "sqlite:////home/me@lab/t.db"),
        ("postgresql://[::1]:5432/db", "postgresql://me:x@[::1]:5432/db"),
    ],
)
def test_study_stored_by_an_earlier_version_is_found(stored, url):
    folder = StudyFolder(Path("nowhere"))
    storage.check_place(folder, stored, url)
    for other in (url.replace("/db", "/other"), url.replace("/t.db", "/u.db")):
        if other != url and "..." not in stored:
            with pytest.raises(StudyError, match="are kept in"):
                storage.check_place(folder, stored, other)


def test_stored_place_tells_files_apart_and_holds_no_login():
    assert storage.locate("sqlite:////home/me@lab/t.db") != storage.locate("sqlite:////home/you@lab/t.db")
    assert storage.locate("postgresql://me:secret#@host:5432/db?password=x") == "postgresql://host:5432/db"
    assert storage.locate("") == "journal"


def test_url_that_cannot_be_read_is_refused_without_its_password():
    for url in ("postgresql://me:secret@h1:5432,h2:5432/db", "postgresql://me:secret"):
        with pytest.raises(StudyError, match="which SQLAlchemy cannot read; write") as refused:
            storage.open_storage(StudyFolder(Path("nowhere")), url)
        assert "secret" not in str(refused.value)


def test_relational_database_holds_a_study_as_a_journal_does(tmp_path):
    folder = StudyFolder(tmp_path / "study")
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    payload = {
        "optuna_study": "accounts",
        "storage": storage.locate(url),
        "description": {"objectives": [["val_accuracy", "maximize"], ["macs", "minimize"]]},
    }
    storage.create_study(folder, payload, url).enqueue_trial({"x": 1})
    assert len(storage.load_study(folder, payload, url).get_trials()) == 1


def test_observer_that_fails_is_named_once_and_does_not_fail_the_study(tmp_path, caplog):
    class Broken(StudyObserver):
        def trial_changed(self, record):
            raise OSError("no space left")

    recorder = Recorder()
    ledger = open_ledger(tmp_path, [Broken(), recorder])
    for _ in range(2):
        configuration = ledger.next_configuration()
        ledger.completed(configuration.number, metrics_of(ledger, configuration, 0.9))
    assert recorder.states == {0: ["RUNNING", "COMPLETE"], 1: ["RUNNING", "COMPLETE"]}
    assert [record.getMessage() for record in caplog.records] == [
        "Broken failed, the study goes on: OSError: no space left"
    ]


def test_checkpoint_that_a_killed_driver_left_of_a_settled_trial_is_removed(tmp_path):
    first = open_ledger(tmp_path)
    configurations = [first.next_configuration() for _ in range(2)]
    first.completed(0, metrics_of(first, configurations[0], 0.9))
    for number in (0, 1):
        first.folder.checkpoint_dir(number).mkdir(parents=True)
    second = open_ledger(tmp_path)
    assert not second.folder.checkpoint_dir(0).exists()
    assert second.folder.checkpoint_dir(1).exists()


def test_images_that_trials_left_out_are_named_once(tmp_path, caplog):
    ledger = open_ledger(tmp_path)
    numbers = [ledger.next_configuration().number for _ in range(2)]
    for number in numbers:
        log = EventLog(ledger.folder.events(number), "attempt")
        log.append("started", resumed_from=None)
        for images in (["a.jpg: broken"], ["b.jpg: broken"]):
            log.append("unreadable", images=images)
            ledger.reported(number, 50, {"val_accuracy": 0.5, "macs": 1.0})
    said = [f"image left out: {name}.jpg: broken" for name in "ab"]
    assert caplog.messages == said
    caplog.clear()
    assert open_ledger(tmp_path).records[0].unreadable == ("a.jpg: broken", "b.jpg: broken")
    assert caplog.messages == []

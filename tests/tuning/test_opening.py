"""What a study is opened with: compared with what is stored, and its budget counted."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from torch import Tensor, nn

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.errors import ConfigurationError, StudyError
from dirprune.files import write_json
from dirprune.networks.weights import save_weights
from dirprune.records.folder import StudyFolder
from dirprune.study.dense import choose_data, describe_origin
from dirprune.study.objectives import Objective
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.tuning import storage
from dirprune.tuning import subject as subjects
from dirprune.tuning.cluster import Resources
from dirprune.tuning.opening import OpenedStudy, _check_same, _count_given
from dirprune.tuning.opening import open_ledger as open_accounts
from dirprune.tuning.options import RunOptions
from dirprune.tuning.preparation import prepare
from dirprune.tuning.subject import describe_subject, find_subject
from tests.data.photograph_folders import write_folders
from tests.integration.toy_study import spec, toy_data
from tests.tuning.test_ledger import make_spec, open_ledger


@pytest.mark.parametrize("stored", [0.9, "0.90", ".9", "dense-0.020", "dense-0.10", None])
def test_a_least_accuracy_that_an_older_version_stored_as_it_was_written_is_the_same(stored):
    spec = make_spec(min_val_accuracy=stored)
    _check_same(
        "study", {"min_val_accuracy": stored}, {"min_val_accuracy": spec.describe()["min_val_accuracy"]}
    )
    with pytest.raises(StudyError, match=r"min_val_accuracy .*, got 0\.5"):
        _check_same("study", {"min_val_accuracy": stored}, {"min_val_accuracy": "0.5"})


def test_what_a_limit_refuses_is_not_given(tmp_path):
    ledger = open_ledger(tmp_path)
    subject = SimpleNamespace(grouping=ledger.grouping, costs=ledger.costs)
    warm = [Architecture.uniform(ledger.grouping, 0.3)]
    prepared = SimpleNamespace(subject=subject, warm_starts=warm)
    space = SearchSpace(uniform_keep_ratios=(0.75, 0.25))
    assert _count_given(make_spec(space=space), prepared) == 1 + 1 + 2
    assert _count_given(make_spec(space=space, limits={"macs": 60_000.0}), prepared) == 1 + 1 + 1


@pytest.mark.parametrize(("identity", "cut"), [(None, "train:0.1"), ("other", "test:0.5")])
def test_a_study_with_weights_of_other_data_is_not_cut_as_their_training_was(tmp_path, identity, cut):
    roles = toy_data(None, validation_from="train:0.1", seed=0)
    trained_on = roles if identity is None else replace(roles, identity=identity)
    weights = tmp_path / "ours.safetensors"
    origin = describe_origin({"name": "Toy"}, trained_on, choose_data(spec, None))
    save_weights(spec.create_network(), weights, origin)
    lines = []
    subject = find_subject(spec, RunOptions(tmp_path, weights=weights), None, lines.append)
    assert describe_subject(spec, subject)["data"]["validation_from"] == cut
    assert subject.roles.validation.source == cut.partition(":")[0]
    assert f"validation from {cut}" in lines[0]
    assert ("WARNING" in lines[0]) is (identity is not None)


def build_small(n_classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n_classes)
    )


@pytest.mark.parametrize(
    ("data", "cpus", "gpus", "is_warned"),
    [
        ("stream:16", 1.0, 1.0, True),
        ("stream:16", 2.0, 2.0, True),
        ("stream:16", 4.0, 1.0, False),
        ("stream:16", 1.0, 0.0, False),
        ("folders:16", 1.0, 1.0, False),
    ],
)
def test_streaming_to_a_gpu_with_one_core_is_warned_of(tmp_path, data, cpus, gpus, is_warned):
    write_folders(tmp_path / "set")
    study = StudySpec(
        name="small", network=build_small, data=data, space=SearchSpace(methods={"magnitude": {}})
    )
    options = RunOptions(
        tmp_path, data=tmp_path / "set", resources=Resources(cpus_per_trial=cpus, gpus_per_trial=gpus)
    )
    lines = []
    told = []
    find_subject(study, options, None, lines.append, lambda *given: told.append(given))
    assert told[0] == ("layers traced", 0, 2)
    assert told[-1] == ("channel groups tried out", 1, 1)
    assert (
        any(line.startswith("WARNING: one process") and "--cpus-per-trial" in line for line in lines)
        is is_warned
    )


ACCURACY, LATENCY = Objective("val_accuracy", "maximize"), Objective("latency_ms", "minimize")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_options": {"n_classes": 5}}, "with 3 outputs, .*, got 5; try another last"),
        ({"network": "resnet20", "network_options": {"n_classes": 5}}, "got 5; try network_options={'n_clas"),
        ({"objectives": (Objective("val_f1", "maximize"), LATENCY)}, "val_f1 has no default reference value"),
        (
            {"objectives": (Objective("val_f1", "maximize"), LATENCY), "reference_point": {"val_f1": 0.0}},
            "val_f1 is not among the evaluation's metrics",
        ),
        ({"reference_point": {"val_accuracy": 1.0}}, "reference value of val_accuracy must be below 1"),
        ({"limits": {"macs": 10.0, "latency_ms": 1.0}}, "macs can be from .* got a limit of 10; try"),
    ],
)
def test_what_does_not_fit_is_refused_before_latencies_are_measured(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(subjects, "obtain_latency", lambda *given: pytest.fail("measured"))
    write_folders(tmp_path / "set")
    fields = {
        "network": build_small,
        "objectives": (ACCURACY, LATENCY),
        "space": SearchSpace(methods={"magnitude": {}}),
    }
    study = StudySpec(name="small", data="folders:16", **(fields | changes))
    with pytest.raises(ConfigurationError, match=message):
        find_subject(study, RunOptions(tmp_path, data=tmp_path / "set"), None, print)


def test_a_latency_decides_once_it_is_known(tmp_path, monkeypatch):
    write_folders(tmp_path / "set")
    study = StudySpec(
        name="small",
        network=build_small,
        data="folders:16",
        objectives=(ACCURACY, LATENCY),
        space=SearchSpace(methods={"magnitude": {}}),
    )

    def know(options, known, network, grouping, roles, *given):
        pairs = CostModel(network, grouping, roles.example_input()).macs_by_pair(grouping.n_channels)
        return SimpleNamespace(constant_ms=2.0, rates_ms=[1.0 / sum(pairs)] * len(pairs))

    monkeypatch.setattr(subjects, "obtain_latency", know)
    options = RunOptions(tmp_path, data=tmp_path / "set")
    found = find_subject(study, options, None, print)
    assert found.reference_point == {"val_accuracy": pytest.approx(1 / 3), "latency_ms": pytest.approx(3.0)}
    with pytest.raises(ConfigurationError, match=r"latency_ms can be from 2.* got a limit of 2; try"):
        find_subject(study.changed(limits={"latency_ms": 2.0}), options, None, print)
    with pytest.raises(ConfigurationError, match="reference value of latency_ms must be above 2"):
        find_subject(study.changed(reference_point={"latency_ms": 2.0}), options, None, print)


class _Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(48, 6)
        self.memory = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 3)
        self.middle = nn.Sequential(nn.Linear(5, 5), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(1, 2).flatten(2)  # (batch, 16, 3 * 16)
        return self.head(self.middle(self.memory(self.first(rows))[0][:, -1]))


def test_parameters_whose_macs_are_not_counted_are_warned_of_before_the_study_begins(tmp_path):
    write_folders(tmp_path / "set")
    study = StudySpec(
        name="small", network=_Remembering, data="folders:16", space=SearchSpace(methods={"magnitude": {}})
    )
    lines = []
    find_subject(study, RunOptions(tmp_path, data=tmp_path / "set"), None, lines.append)
    (warning,) = (line for line in lines if line.startswith("WARNING"))
    assert warning.endswith("%) lie in layers whose MACs are not counted: memory (GRU)")


def test_samplers_that_chose_trials_are_recorded_and_unknown_for_a_study_of_an_earlier_version(tmp_path):
    (tmp_path / "toy").mkdir()
    folder = StudyFolder(tmp_path / "toy")

    def open_with(sampler, trials=8):
        options = RunOptions(tmp_path, sampler=sampler)
        quick = spec.changed(
            name="toy", trials=trials, dense_epochs=1, space=replace(spec.space, warm_starts=0)
        )
        subject = find_subject(quick, options, None, print)
        prepared = prepare(subject.spec, options, folder, subject, print, None, None)
        ledger = open_accounts(OpenedStudy(folder, "0123456789", subject), prepared, options, [], print)
        return ledger, storage.read_study_json(folder).get("samplers")

    ledger, recorded = open_with("auto")
    assert recorded == ["random"]  # so few trials end before another one has learnt anything
    assert open_with("random")[1] == ["random"]
    assert open_with("tpe")[1] == ["random", "tpe"]
    storage.settle(ledger.study, ledger.next_configuration().number, TrialState.FAIL, {})
    assert open_with("nsga2", trials=1)[1] == ["random", "tpe"]  # no trial is left to choose
    earlier = storage.read_study_json(folder)
    del earlier["samplers"]
    write_json(folder.study_json, earlier, storage.STUDY_SCHEMA)
    assert open_with("tpe")[1] is None

"""One trial alone, without Ray: what it leaves, how it goes on after a loss, and which data it reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dirprune import pruning
from dirprune.architecture import Architecture
from dirprune.data import load_data
from dirprune.errors import ConfigurationError, StudyError, TrainingDiverged
from dirprune.importance import select_channels
from dirprune.networks import create_network
from dirprune.preemption import Preempted, Preemption
from dirprune.recipe import Recipe
from dirprune.records.events import EventLog, read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.models import load_model
from dirprune.remote import RemoteFolder
from dirprune.study.objectives import Objective
from dirprune.study.space import Configuration
from dirprune.study.spec import StudySpec
from dirprune.training_state import TrainingState
from dirprune.trial import TrialContext, TrialReport, Workbench, make_final_bench, run_trial
from tests.data.photograph_folders import write_folders
from tests.integration.toy_study import Toy, regression, toy_data
from tests.integration.toy_study import spec as toy_spec

FULL = Architecture({"first": 16, "second": 16})
CUT = Architecture({"first": 5, "second": 7})


def make_context(folder: Path, spec: StudySpec = toy_spec, **changes) -> TrialContext:
    """Return what the trials of a small study of an untrained regression network share."""
    roles = replace(toy_data(None, validation_from="train:0.1", seed=0), **changes)
    torch.manual_seed(0)
    state = spec.create_network().state_dict()
    return TrialContext(spec, roles, state, folder / "study", folder / "scores", {"data": "toy"})


def make_bench(folder: Path, spec: StudySpec = toy_spec, **changes) -> Workbench:
    """Return the same as a worker has it."""
    return Workbench(make_context(folder, spec, **changes))


def configure(architecture: Architecture = CUT, source: str = "sampler", number: int = 4) -> Configuration:
    return Configuration(number, source, architecture, "taylor", {}, {"lr": 3e-3})


def run(bench: Workbench, configuration: Configuration | None = None) -> list[TrialReport]:
    """Run a trial to its end; its reports, without what a clock says."""
    return [timeless(report) for report in run_trial(bench, configuration or configure())]


def timeless(report: TrialReport) -> TrialReport:
    kept = {name: value for name, value in report.metrics.items() if name != "images_per_s"}
    return replace(report, metrics=kept)


def test_scoring_takes_the_memory_that_the_study_allows(tmp_path, monkeypatch):
    allowed = []

    def choose(method, context, *arguments, **options):
        allowed.append(context.memory_mb)
        return select_channels(method, context, *arguments, **options)

    monkeypatch.setattr(pruning, "select_channels", choose)
    bench = Workbench(replace(make_context(tmp_path), memory_mb=77))
    next(run_trial(bench, configure()))
    assert allowed == [77]


def test_finalists_are_trained_with_the_fields_of_their_recipe(tmp_path):
    spec = toy_spec.changed(final_fine_tuning={"lr": 0.01, "batch_size": 7})
    bench = make_bench(tmp_path, spec)
    final = make_final_bench(bench, 4, 0, epochs=2.0)
    reports = list(run_trial(final, configure(), 0))  # whose own rate is lower
    assert reports[-1].images == 1800
    assert reports[1].metrics["lr"] > 0.005
    assert run(bench)[1].metrics["lr"] < 0.003


def test_finished_trial_leaves_its_model_and_its_events(tmp_path):
    bench = make_bench(tmp_path)
    reports = list(run_trial(bench, configure()))
    assert [report.images for report in reports] == [0, 900, 1800, 2700, 3600]
    assert [report.is_final for report in reports] == [False] * 4 + [True]
    final = reports[-1].metrics
    assert final["parameters"] == 6 * 5 + 5 + 5 * 7 + 7 + 7 * 2 + 2
    assert final["val_mae"] < reports[0].metrics["val_mae"]
    events = replay(read_events(bench.folder.events(4)))
    assert events.finished == {"metrics": final}
    assert [images for images, _ in events.curve] == [0, 900, 1800, 2700, 3600]
    network = load_model(bench.folder.model_dir(4), Toy)
    outputs = network(bench.roles.normalise(bench.roles.test.inputs))
    assert regression(outputs, bench.roles.test.targets)["mae"] == pytest.approx(final["test_mae"], rel=1e-6)
    stored = json.loads((bench.folder.model_dir(4) / "architecture.json").read_text())
    assert stored["network"]["weights"] == {"data": "toy"}
    assert stored["normalisation"] == {"mean": [0.0], "std": [1.0]}


def build_small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def test_images_that_cannot_be_read_are_named_once_in_the_events(tmp_path):
    write_folders(tmp_path / "set")
    spec = StudySpec(name="small", network=build_small, data="stream:16", epochs=2)
    roles = load_data("stream:16", tmp_path / "set", validation_from="test:0.5")
    place = next(place for place in roles.train.indices.tolist() if place not in roles.calibration.indices)
    path = roles.train.index.path(place)
    Path(path).write_bytes(b"no image")
    state = build_small().state_dict()
    bench = Workbench(TrialContext(spec, roles, state, tmp_path / "study", tmp_path / "scores", {}))
    for number in (0, 1):
        architecture = Architecture.full(bench.grouping)
        list(run_trial(bench, Configuration(number, "sampler", architecture, "magnitude", {}, {})))
    named = [replay(read_events(bench.folder.events(number))).unreadable for number in (0, 1)]
    assert named == [(f"{path}: cannot identify image file",), ()]  # the same by any worker


def test_dense_network_is_judged_as_it_is(tmp_path):
    bench = make_bench(tmp_path)
    (report,) = run_trial(bench, configure(FULL, source="dense", number=0))
    assert report.is_final
    assert report.images == 0
    images = bench.roles.normalise(bench.roles.validation.inputs)
    expected = regression(bench.network(images), bench.roles.validation.targets)["mae"]
    assert report.metrics["val_mae"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("n_heard", [1, 2, 4])
def test_trial_that_lost_its_worker_ends_as_if_nothing_had_happened(tmp_path, n_heard):
    whole = run(make_bench(tmp_path / "whole"))
    bench = make_bench(tmp_path / "lost")
    lost = run_trial(bench, configure())
    heard = [timeless(next(lost)) for _ in range(n_heard)]
    lost.close()  # the worker is gone after its last report was heard
    again = run(make_bench(tmp_path / "lost"))
    assert again[0] == heard[-1]  # what may not have been heard is said again
    assert again[-1] == whole[-1]
    events = replay(read_events(bench.folder.events(4)))
    assert events.n_attempts == 2
    assert [images for images, _ in events.curve] == [report.images for report in whole]


def test_trial_that_was_lost_after_its_end_only_says_so_again(tmp_path):
    bench = make_bench(tmp_path)
    whole = list(run_trial(bench, configure()))
    again = list(run_trial(bench, configure()))
    assert again[-1] == whole[-1]
    assert [report.is_final for report in again] == [True]  # no rung hears of it


def test_worker_that_is_told_to_end_while_it_trains_leaves_all_that_it_has(tmp_path):
    whole = run(make_bench(tmp_path / "whole"))
    bench = make_bench(tmp_path / "told")
    told = run_trial(bench, configure())
    heard = [timeless(next(told)) for _ in range(2)]  # after pruning and after 900 images
    bench.preemption.is_asked = True
    with pytest.raises(Preempted):
        next(told)
    again = run(make_bench(tmp_path / "told"))
    assert [*heard[:-1], *again] == whole  # the last report is said again
    events = read_events(bench.folder.events(4))
    assert [event["event"] for event in events].count("failed") == 0
    resumed = [event["resumed_from"] for event in events if event["event"] == "started"]
    assert resumed[0] is None
    assert 900 < resumed[1] < 1800  # one step further, not back at the report


class LostAfterFourLooks(Preemption):
    """Ends the process without its having been told."""

    n_looks = 0

    def check(self) -> None:
        self.n_looks += 1
        if self.n_looks > 4:
            raise Preempted(1)


@pytest.mark.parametrize(("checkpoint_s", "is_between_reports"), [(0.0, True), (300.0, False)])
def test_long_trainings_are_kept_between_reports(tmp_path, checkpoint_s, is_between_reports):
    bench = make_bench(tmp_path)
    bench.checkpoint_s, bench.preemption = checkpoint_s, LostAfterFourLooks()
    with pytest.raises(Preempted):
        list(run_trial(bench, configure()))
    state = TrainingState.load(bench.folder.checkpoint_dir(4) / "state.pt")
    assert (state.images % 900 > 0) == is_between_reports


def test_a_checkpoint_in_a_storage_that_cannot_be_read_is_named_by_its_address(tmp_path):
    bench, remote = make_bench(tmp_path), RemoteFolder(f"file://{tmp_path}/storage")
    bench.folder = StudyFolder(tmp_path / "scratch", remote)
    next(run_trial(bench, configure()))
    (checkpoint,) = [name for name in remote.list() if name.endswith("state.pt")]
    remote.write(checkpoint, b"torn")
    with pytest.raises(StudyError, match=f"^expected a training state at {remote.uri}/{checkpoint}, but it"):
        next(run_trial(bench, configure()))


def test_late_checkpoint_of_a_lost_worker_does_not_overwrite_its_successor(tmp_path):
    bench = make_bench(tmp_path)
    lost = run_trial(bench, configure())
    next(lost)
    list(run_trial(make_bench(tmp_path), configure()))
    checkpoint = (bench.folder.checkpoint_dir(4) / "state.pt").read_bytes()
    next(lost)
    assert (bench.folder.checkpoint_dir(4) / "state.pt").read_bytes() == checkpoint
    assert replay(read_events(bench.folder.events(4))).finished is not None


def test_late_cut_of_a_lost_worker_does_not_overwrite_its_successors(tmp_path, monkeypatch):
    bench = make_bench(tmp_path)

    def select_late(*arguments, **options):
        monkeypatch.undo()
        successor = run_trial(make_bench(tmp_path), configure())
        next(successor)
        next(successor)  # after 900 images its worker is gone, too
        return select_channels(*arguments, **options)

    monkeypatch.setattr(pruning, "select_channels", select_late)
    next(run_trial(bench, replace(configure(), method="magnitude")))  # as if rounding had chosen others
    scored, other = [event["kept"] for event in read_events(bench.folder.events(4)) if "kept" in event]
    assert scored != other
    run(make_bench(tmp_path))  # goes on from the successor's checkpoint
    groups = json.loads((bench.folder.model_dir(4) / "architecture.json").read_text())["groups"]
    assert {name: group["kept"] for name, group in groups.items()} == scored


def test_late_end_of_a_lost_worker_is_refused_and_leaves_no_model(tmp_path):
    bench = make_bench(tmp_path)
    lost = run_trial(bench, configure())
    next(lost)
    successor = EventLog(bench.folder.events(4), "successor")
    successor.append("started", resumed_from=None)
    with pytest.raises(StudyError, match="trial 4 goes on elsewhere"):
        list(lost)
    assert not bench.folder.model_dir(4).exists()
    events = replay(read_events(bench.folder.events(4)))
    assert (events.attempt, events.finished, events.failed) == ("successor", None, None)


def test_another_trial_or_study_seed_draws_another_order_of_images(tmp_path):
    def end(name: str, spec: StudySpec = toy_spec, number: int = 4) -> float:
        return list(run_trial(make_bench(tmp_path / name, spec), configure(number=number)))[-1].metrics[
            "val_mae"
        ]

    first = end("first")
    assert end("same") == first
    assert end("number", number=5) != first
    assert end("seed", replace(toy_spec, seed=1)) != first


def test_test_split_decides_nothing(tmp_path):
    plain = run(make_bench(tmp_path / "plain"))
    test = make_bench(tmp_path / "other").roles.test
    garbage = replace(test, inputs=torch.full_like(test.inputs, 7.0), targets=-test.targets)
    spoilt = run(make_bench(tmp_path / "spoilt", test=garbage))
    assert spoilt[:-1] == plain[:-1]
    validation = {name: value for name, value in plain[-1].metrics.items() if not name.startswith("test_")}
    assert validation.items() <= spoilt[-1].metrics.items()
    assert spoilt[-1].metrics["test_mae"] != plain[-1].metrics["test_mae"]


def test_scores_read_no_validation_and_no_test(tmp_path):
    plain = make_bench(tmp_path / "plain")
    next(run_trial(plain, configure()))
    roles = plain.roles
    nowhere = {
        role: replace(getattr(roles, role), inputs=torch.full_like(getattr(roles, role).inputs, 3.0))
        for role in ("validation", "test")
    }
    spoilt = make_bench(tmp_path / "spoilt", **nowhere)
    next(run_trial(spoilt, configure()))

    def kept(bench: Workbench) -> str:
        return (bench.folder.checkpoint_dir(4) / "kept.json").read_text()

    assert kept(spoilt) == kept(plain)


def test_objective_that_is_not_finite_fails_the_trial_with_its_reason(tmp_path):
    def broken(outputs, targets):
        return {"mae": float("nan")}

    bench = make_bench(tmp_path, replace(toy_spec, evaluation=broken))
    with pytest.raises(TrainingDiverged, match="not finite"):
        list(run_trial(bench, configure()))
    failed = replay(read_events(bench.folder.events(4))).failed
    assert failed is not None
    assert failed["reason"].startswith("TrainingDiverged: ")


def test_objective_that_is_missing_fails_the_trial(tmp_path):
    spec = replace(
        toy_spec, objectives=(Objective("val_rmse", "minimize"),), reference_point={"val_rmse": 1.0}
    )
    with pytest.raises(ConfigurationError, match="expected objective val_rmse among the reported metrics"):
        list(run_trial(make_bench(tmp_path, spec), configure()))


def test_second_trial_takes_the_scores_of_the_first(tmp_path):
    bench = make_bench(tmp_path)
    for number, is_cached in ((4, False), (5, True)):
        next(run_trial(bench, configure(number=number)))
        scored = replay(read_events(bench.folder.events(number))).scored
        assert scored is not None
        assert scored["cached"] is is_cached


def test_distillation_learns_from_the_dense_network_and_leaves_it_alone(tmp_path):
    spec = StudySpec(
        name="small",
        network="lenet5",
        network_options={"widths": (3, 4, 8, 6)},
        data="digits",
        epochs=0.1,
        rungs=(),
        fine_tuning=Recipe(images=0, distillation=0.5),
    )
    roles = spec.load_data(None, "train:0.1", 0)
    state = create_network("lenet5", {"widths": (3, 4, 8, 6)}, seed=1).state_dict()
    bench = Workbench(TrialContext(spec, roles, state, tmp_path / "study", tmp_path / "scores", {}))
    before = {name: tensor.clone() for name, tensor in bench.network.state_dict().items()}
    architecture = Architecture({"conv1": 2, "conv2": 3, "linear1": 5, "linear2": 4})
    *_, final = run_trial(bench, Configuration(1, "sampler", architecture, "magnitude", {}, {}))
    assert final.is_final
    assert all(torch.equal(before[name], tensor) for name, tensor in bench.network.state_dict().items())

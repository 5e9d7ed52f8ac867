"""Warm starts: found once for a study, the first that it tries, and the same when it goes on."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.data import load_data
from dirprune.importance import ScoreCache, Scorer, ScoringContext, create
from dirprune.importance.greedy import compute_path
from dirprune.networks import create_network
from dirprune.records.folder import StudyFolder
from dirprune.sensitivity import Cuts, measure_curves, measure_loss
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.study.warm_starts import find_warm_starts, obtain_warm_starts
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from tests.importance.cases import identity, make_split
from tests.importance.simplex.planted import planted_case
from tests.networks_for_tests import build_case
from tests.tuning.test_ledger import open_ledger

SPACE = SearchSpace(methods={"magnitude": {}}, min_keep_ratio=0.3, uniform_keep_ratios=())


def make_spec(**changes) -> StudySpec:
    given = {"name": "warm", "network": "lenet5", "data": "digits", "trials": 12, "space": SPACE, **changes}
    return StudySpec(**given)


def make_case():
    """Return a context and the costs of its network."""
    context = planted_case()
    return context, CostModel(context.network, context.grouping, context.calibration.inputs[:2])


def test_they_come_right_after_the_dense_network_and_once_for_all_drivers(tmp_path):
    small = Architecture.uniform(open_ledger(tmp_path / "other").grouping, 0.2)
    warm = [small, Architecture({**small, "linear1": 50})]
    for _ in range(2):  # a second driver opens the same study
        ledger = open_ledger(tmp_path, warm_starts=warm, trials=8)
    found = [ledger.next_configuration() for _ in range(7)]
    sources = ["dense", "warm-start", "warm-start", "uniform", "uniform", "uniform", "sampler"]
    assert [configuration.source for configuration in found] == sources
    assert [configuration.architecture for configuration in found[1:3]] == warm


def test_they_are_within_the_limits_and_the_space_and_few_enough_for_the_trials(tmp_path):
    context, costs = make_case()
    whole = costs.costs(costs.n_channels).macs
    found = find_warm_starts(make_spec(limits={"macs": 0.6 * whole}), context, costs)
    assert 0 < len(found) <= 6
    for allocation in found:
        assert costs.costs(allocation.architecture).macs == allocation.cost <= 0.6 * whole
        for name, width in allocation.architecture.items():
            assert width >= SPACE.lowest(costs.n_channels[name])
    assert len(find_warm_starts(make_spec(trials=3), context, costs)) == 1
    uniform = SearchSpace(methods={"magnitude": {}}, min_keep_ratio=0.3)
    assert find_warm_starts(make_spec(trials=4, space=uniform), context, costs) == []
    without = dataclasses.replace(SPACE, warm_starts=0)
    assert find_warm_starts(make_spec(space=without), context, costs) == []


def test_channels_that_matter_little_are_what_cheap_ones_do_without():
    context, costs = make_case()
    found = find_warm_starts(make_spec(), context, costs)
    losses = [allocation.loss for allocation in sorted(found, key=lambda allocation: allocation.cost)]
    assert losses == sorted(losses, reverse=True)


def test_their_losses_are_those_of_all_groups_cut_at_once(tmp_path):
    roles = load_data("digits", validation_from="train:0.1", train_limit=300, seed=0)
    network = create_network("lenet5", seed=0).eval()
    grouping = find_groups(network, roles.example_input())
    context = ScoringContext(
        network, grouping, roles.calibration, roles.normalise, make_task(), seed=0, device="cpu"
    )
    costs = CostModel(network, grouping, roles.example_input())
    found = find_warm_starts(make_spec(trials=6), context, costs)
    cuts = Cuts(context, create("magnitude", {}))
    assert len(found) >= 2
    for allocation in found:
        lost = max(0.0, cuts.measure(allocation.architecture))
        assert allocation.loss == pytest.approx(lost, rel=1e-3)


def test_multiples_count_channels_where_they_go_in_parts():
    network, example = build_case("group normed")
    grouping = find_groups(network.eval(), example)
    images = torch.rand(60, *example.shape[1:], generator=torch.Generator().manual_seed(0))
    split = make_split(images, network(images).argmax(1))
    context = ScoringContext(network, grouping, split, identity, make_task(), seed=0)
    costs = CostModel(network, grouping, example)
    space = dataclasses.replace(SPACE, channel_multiple=8)
    found = find_warm_starts(make_spec(space=space), context, costs)
    assert {start.architecture["stem"] for start in found} == {2}  # of three fours
    assert {start.architecture["conv_a"] for start in found} == {5}


def test_those_of_a_path_are_what_greedy_elimination_comes_by(tmp_path):
    context, costs = make_case()
    ((name, n_channels),) = costs.n_channels.items()
    space = dataclasses.replace(SPACE, warm_starts_from="path", channel_multiple=2)
    cache = ScoreCache(tmp_path / "scores")
    found = find_warm_starts(make_spec(space=space), context, costs, cache)
    path = compute_path(context)
    whole = -measure_loss(context, context.network)
    lost = {step.architecture[name]: whole - step.value for step in path.steps}
    allowed = {*range(2, n_channels, 2), n_channels}
    assert len(found) >= 2
    for allocation in found:
        width = allocation.architecture[name]
        assert width in allowed
        assert allocation.cost == costs.costs(allocation.architecture).macs
        assert allocation.loss == pytest.approx(min(lost.get(width, math.inf), lost.get(width - 1, math.inf)))
    limit = 0.6 * costs.costs(costs.n_channels).macs
    limited = find_warm_starts(make_spec(space=space, limits={"macs": limit}), context, costs, cache)
    assert limited
    assert all(allocation.cost <= limit for allocation in limited)


def test_a_study_that_goes_on_has_those_that_it_began_with(tmp_path):
    context, costs = make_case()
    folder = StudyFolder(tmp_path / "warm")
    folder.root.mkdir()
    cache = ScoreCache(tmp_path / "scores")
    first = obtain_warm_starts(folder, lambda: find_warm_starts(make_spec(), context, costs, cache))
    assert first == [a.architecture for a in find_warm_starts(make_spec(), context, costs)]
    folder.study_json.write_text("{}")
    assert obtain_warm_starts(folder, lambda: pytest.fail("found again")) == first


def test_those_of_a_start_that_did_not_come_to_a_study_are_found_again(tmp_path):
    context, costs = make_case()
    folder = StudyFolder(tmp_path / "warm")
    folder.root.mkdir()
    cache = ScoreCache(tmp_path / "scores")
    many = obtain_warm_starts(folder, lambda: find_warm_starts(make_spec(), context, costs, cache))
    few = obtain_warm_starts(folder, lambda: find_warm_starts(make_spec(trials=3), context, costs, cache))
    assert len(few) <= 1 < len(many)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_widths_whose_loss_is_not_finite_are_no_warm_starts_and_no_reason_to_refuse_a_study(broken):
    context, costs = make_case()
    ((name, n_channels),) = costs.n_channels.items()
    method, widths = create("magnitude", {}), {name: range(1, n_channels)}
    sound = measure_curves(Cuts(context, method), widths)[name]
    bound = (sound.losses[3] + sound.losses[4]) / 2  # four channels and fewer are too few for the loss below

    def loss(outputs, targets):
        each = ((outputs - targets) ** 2).flatten(1).mean(1)
        return each if each.mean() < bound else each * broken

    fragile = dataclasses.replace(context, task=make_task(loss, "mse"))
    curve = measure_curves(Cuts(fragile, method), widths)[name]
    assert curve.widths == sound.widths[4:]
    assert curve.losses == pytest.approx(sound.losses[4:])
    found = find_warm_starts(make_spec(), fragile, costs)
    assert found
    assert all(allocation.architecture[name] > 4 for allocation in found)


def test_a_scorer_scores_once_for_all_widths_and_what_is_done_is_told_all_along():
    class Counting(Scorer):
        count = 0

        def score(self, context):
            type(self).count += 1
            return {name: torch.arange(n).float() for name, n in context.grouping.n_channels.items()}

    context, costs = make_case()
    ((name, n_channels),) = costs.n_channels.items()
    told = []
    watched = dataclasses.replace(context, progress=lambda *report: told.append(report))
    measure_curves(Cuts(watched, Counting()), {name: range(1, n_channels)})
    assert Counting.count == 1
    n_total = n_channels - 1
    assert told[0] == ("sensitivity", 0, n_total)
    widths = [n_done for what, n_done, _ in told if what == "sensitivity"]
    assert widths == list(range(n_channels))
    assert [what for what, *_ in told[1:3]] == ["reconstruction", "sensitivity"]


@pytest.mark.parametrize(("n_calibration", "n_judging"), [(60, 60), (1000, 250), (1600, 400), (5000, 500)])
def test_a_study_of_few_images_is_judged_by_few(n_calibration, n_judging):
    judged = []

    def loss(outputs, targets):
        judged.append(len(outputs))
        return ((outputs - targets) ** 2).flatten(1).mean(1)

    context = dataclasses.replace(planted_case(n_calibration), task=make_task(loss, "mse"))
    measure_curves(Cuts(context, create("magnitude", {})), {"0": (4, 6)})
    assert sum(judged) == 3 * n_judging  # the dense network, and one for each width


def test_measuring_leaves_the_network_as_it_was():
    context, costs = make_case()
    before = {name: value.clone() for name, value in context.network.state_dict().items()}
    find_warm_starts(make_spec(), context, costs)
    after = context.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_every_study_starts_with_is_no_warm_start_and_takes_no_place_of_one():
    context, costs = make_case()
    of_plain = find_warm_starts(make_spec(), context, costs)
    ratio = of_plain[0].architecture["0"] / costs.n_channels["0"]
    spec = make_spec(space=dataclasses.replace(SPACE, uniform_keep_ratios=(ratio,)))
    found = [one.architecture for one in find_warm_starts(spec, context, costs)]
    assert of_plain[0].architecture not in found
    assert len(found) >= len(of_plain) - 1

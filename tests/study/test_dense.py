"""The dense network: trained once and kept, on a cut of the data that its weights have not seen."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from dirprune.data import load_data
from dirprune.errors import ConfigurationError, StudyError, WeightsError
from dirprune.networks.weights import read_metadata, save_weights
from dirprune.remote import RemoteFolder
from dirprune.study.dense import (
    DATA_IDENTITY,
    check_metrics,
    choose_data,
    compare_data,
    compare_roles,
    describe_origin,
    judge_cut,
    obtain_dense,
)
from tests.data.photograph_folders import write_folders
from tests.integration.toy_study import spec, toy_data


@pytest.fixture
def roles():
    return toy_data(None, validation_from="train:0.1", seed=0)


def test_network_trained_here_is_validated_on_unseen_training_images():
    choice = choose_data(spec, None)
    assert (choice.validation_from, choice.seed) == ("train:0.1", 0)
    assert choice.reason == "carved from the training set, unseen by training"
    held_out = choose_data(spec.changed(validation_from="test:0.5"), None)
    assert held_out.reason == "carved from the held-out set, unseen by training"


def test_foreign_weights_are_taken_to_have_seen_the_training_set(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_weights(spec.create_network(), path)
    choice = choose_data(spec, path)
    assert choice.validation_from == "test:0.5"
    assert "probably learnt the whole training set" in choice.reason


def test_foreign_weights_on_a_part_of_the_training_set_are_warned_of(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_weights(spec.create_network(), path)
    roles = toy_data(None, validation_from="train:0.2", seed=0)
    choice = compare_data(choose_data(spec.changed(validation_from="train:0.2"), path), path, roles)
    assert choice.validation_from == "train:0.2"
    assert choice.reason.startswith("WARNING")
    assert choice.reason.endswith("validation measures memory; try test:0.5")
    origin = describe_origin({"name": "Toy"}, roles, choice)
    assert origin["validation_from"] == "test:0.5"  # so that its models do not pass for unseen by train:0.2
    assert DATA_IDENTITY not in origin  # that of the training set, while the cut is of the held-out set


def test_own_weights_get_the_cut_of_their_training_whatever_the_study_s_seed(tmp_path, roles):
    path = tmp_path / "ours.safetensors"
    origin = describe_origin({"name": "Toy"}, roles, choose_data(spec.changed(seed=7), None))
    save_weights(spec.create_network(), path, origin)
    choice = choose_data(spec.changed(seed=3), path)
    assert (choice.validation_from, choice.seed) == ("train:0.1", 7)


def test_a_cut_of_other_data_is_not_trusted(tmp_path, roles):
    path = tmp_path / "ours.safetensors"
    chosen = choose_data(spec, None)
    save_weights(spec.create_network(), path, describe_origin({"name": "Toy"}, roles, chosen))
    choice = choose_data(spec, path)
    assert compare_data(choice, path, roles) == choice
    others = replace(roles, identity="other")
    known = compare_data(choice, path, others)
    assert known.validation_from == "test:0.5"
    assert known.reason == (
        "WARNING: these weights were trained on other data than these, or in another order, "
        "so that they may have learnt any of the training set"
    )
    assert describe_origin({"name": "Toy"}, others, known)[DATA_IDENTITY] == "other"
    asked = spec.changed(validation_from="train:0.1")
    asked_for = compare_data(choose_data(asked, path), path, others)
    assert asked_for.validation_from == "train:0.1"
    assert asked_for.reason == f"{known.reason}; try test:0.5"
    assert describe_origin({"name": "Toy"}, others, asked_for)["validation_from"] == "test:0.5"


OTHERS, MEMORY = "trained on other data than these", "validation measures memory"


@pytest.mark.parametrize(
    ("own", "data", "identity", "cut", "said", "advice"),
    [
        ("train:0.1", "toy", "toy's", "train:0.1", "", ""),
        ("train:0.1", "toy", "toy's", "test:0.5", "", ""),
        ("train:0.1", "streamed toy", "toy's", "train:0.1", "", ""),  # what the identity says counts
        ("train:0.1", "toy", "toy's", "train:0.3", MEMORY, "train:0.1"),
        ("train:0.1", "toy", "other", "train:0.1", OTHERS, "test:0.5"),
        ("train:0.1", "other", "other", "train:0.3", OTHERS, "test:0.5"),
        ("train:0.1", "other", "other", "test:0.3", "", ""),
        ("train:0.1", "other", "", "train:0.1", OTHERS, "test:0.5"),
        ("train:0.1", "toy", "", "train:0.1", "on trust", ""),
        ("train:0.1", "", "", "train:0.1", "on trust", ""),
        ("train:0.1", "toy", "", "train:0.3", MEMORY, "train:0.1"),
        ("test:0.3", "other", "other", "train:0.1", MEMORY, "test:0.3"),
        ("", "", "", "train:0.1", MEMORY, "test:0.5"),
        ("", "", "", "test:0.5", "", ""),
    ],
)
def test_weights_have_learnt_whatever_their_training_did_not_leave_out(
    own, data, identity, cut, said, advice
):
    known = {"validation_from": own, "data": data, "data_identity": identity}
    origin = {key: text for key, text in known.items() if text}
    verdict = judge_cut(origin, cut, "toy", "toy's")
    assert (verdict.is_learnt, verdict.advice) == (bool(advice), advice)
    assert verdict.is_known is (said != "on trust")
    assert said in verdict.remark
    assert bool(said) == bool(verdict.remark)


def test_a_cut_that_is_asked_for_has_the_seed_of_the_weights(tmp_path, roles):
    path = tmp_path / "ours.safetensors"
    origin = describe_origin({"name": "Toy"}, roles, choose_data(spec.changed(seed=7), None))
    save_weights(spec.create_network(), path, origin)
    asked = spec.changed(seed=3, validation_from="train:0.3")
    assert choose_data(asked, path).seed == 7


def test_a_cut_of_data_that_older_weights_do_not_tell_is_taken_on_trust_and_said(tmp_path, roles):
    path = tmp_path / "older.safetensors"
    origin = describe_origin({"name": "Toy"}, roles, choose_data(spec, None))
    save_weights(spec.create_network(), path, {key: origin[key] for key in origin if key != DATA_IDENTITY})
    choice = compare_data(choose_data(spec, path), path, roles)
    assert choice.validation_from == "train:0.1"
    assert choice.reason.endswith("on this cut; taken on trust: the weights do not say of which data")
    assert DATA_IDENTITY not in describe_origin({"name": "Toy"}, roles, choice)


def test_validation_of_streamed_images_is_none_that_weights_of_fewer_in_memory_have_learnt(tmp_path):
    """An image that cannot be read is left out in memory before the cut, and streamed only later."""
    write_folders(tmp_path / "set", n_train=40)
    load = partial(load_data, root=tmp_path / "set", validation_from="train:0.1")
    origin = describe_origin({"name": "Toy"}, load("folders:16"), choose_data(spec, None))
    path = tmp_path / "ours.safetensors"
    save_weights(spec.create_network(), path, origin)
    choice = choose_data(spec, path)
    assert compare_data(choice, path, load("stream:16")) == choice
    (tmp_path / "set" / "train" / "bee" / "003.jpg").write_bytes(b"no image")
    save_weights(spec.create_network(), path, describe_origin({"name": "Toy"}, load("folders:16"), choice))
    assert compare_data(choice, path, load("folders:16")) == choice
    assert compare_data(choice, path, load("stream:16")).validation_from == "test:0.5"


def test_dense_network_is_trained_once_and_kept(tmp_path, roles):
    choice = choose_data(spec, None)
    reports = []
    first = obtain_dense(
        spec, roles, choice, tmp_path, listen=lambda report, n: reports.append(report.images)
    )
    assert reports == [900 * epoch for epoch in range(1, 11)]
    second = obtain_dense(
        spec, roles, choice, tmp_path, listen=lambda report, n: pytest.fail("trained again")
    )
    assert second.digest == first.digest
    assert second.metrics == first.metrics
    assert first.metrics["val_mae"] < 0.6
    assert read_metadata(first.origin)["data"] == "toy"
    assert not list((tmp_path / "dense").glob("*.pt"))


def test_how_many_images_have_judged_the_dense_network_is_told_up_to_all_of_them(tmp_path, roles):
    choice = choose_data(spec, None)
    told = []
    dense = obtain_dense(spec, roles, choice, tmp_path, progress=lambda *how_far: told.append(how_far))
    n_all = len(roles.validation) + len(roles.test)
    assert {what for what, _, _ in told} == {"images that judge the dense network"}
    assert [n_done for _, n_done, _ in told] == sorted({n_done for _, n_done, _ in told})
    assert told[-1][1:] == (n_all, n_all)
    told.clear()
    known = {dense.digest: dense.metrics}
    obtain_dense(spec, roles, choice, tmp_path, known=known, progress=lambda *how_far: told.append(how_far))
    assert told == []


def test_interrupted_training_of_the_dense_network_goes_on(tmp_path, roles):
    choice = choose_data(spec, None)
    whole = obtain_dense(spec, roles, choice, tmp_path / "whole")

    def interrupt(report, n_images):
        if report.images == 2700:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain_dense(spec, roles, choice, tmp_path / "cut", listen=interrupt)
    assert not list((tmp_path / "cut" / "dense").glob("*.safetensors"))
    images = []
    again = obtain_dense(spec, roles, choice, tmp_path / "cut", listen=lambda r, n: images.append(r.images))
    assert images[0] == 3600
    assert again.digest == whole.digest


def test_a_checkpoint_in_a_storage_that_cannot_be_read_is_named_by_its_address(tmp_path, roles):
    choice, remote = choose_data(spec, None), RemoteFolder(f"file://{tmp_path}/storage")

    def interrupt(report, n_images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain_dense(spec, roles, choice, tmp_path / "driver", listen=interrupt, remote=remote)
    (checkpoint,) = remote.list()
    remote.write(checkpoint, b"torn")
    with pytest.raises(StudyError, match=f"^expected a training state at {remote.uri}/{checkpoint}, but it"):
        obtain_dense(spec, roles, choice, tmp_path / "driver", remote=remote)


def test_another_seed_trains_another_network(tmp_path, roles):
    first = obtain_dense(spec, roles, choose_data(spec, None), tmp_path)
    other = obtain_dense(spec.changed(seed=1), roles, choose_data(spec, None), tmp_path)
    assert other.digest != first.digest


def test_weights_that_are_not_finite_are_refused(tmp_path, roles):
    network = spec.create_network()
    torch.nn.init.constant_(network.last.bias, float("inf"))
    save_weights(network, tmp_path / "broken.safetensors")
    choice = choose_data(spec, tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match="weights of Toy that are finite, got NaN or infinity in last"):
        obtain_dense(spec, roles, choice, tmp_path, tmp_path / "broken.safetensors")


def test_objective_that_the_evaluation_does_not_give_is_named_with_the_nearest():
    check_metrics(spec, {"val_mae": 1.0})
    with pytest.raises(
        ConfigurationError, match="val_mae is not among the evaluation's metrics; did you mean"
    ):
        check_metrics(spec, {"val_mea": 1.0, "val_loss": 1.0})


@pytest.mark.parametrize(("validation", "test", "is_warned"), [(0.99, 0.985, False), (0.9995, 0.98, True)])
def test_roles_that_differ_by_more_than_three_standard_errors_are_warned_of(validation, test, is_warned):
    warning = compare_roles({"val_accuracy": validation, "test_accuracy": test}, 5000, 5000)
    assert (warning is not None) == is_warned


def test_roles_without_accuracy_are_not_compared():
    assert compare_roles({"val_mae": 1.0, "test_mae": 9.0}, 10, 10) is None

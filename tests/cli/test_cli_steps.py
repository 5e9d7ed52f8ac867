"""The single steps on the digits: what they write can be used, and what they print is measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from dirprune.architecture import Architecture
from dirprune.cli import subjects, training
from dirprune.cli.options import OPTIONS_OF_METHODS
from dirprune.cli.own_network import find_in_file
from dirprune.cli.weights import Header, read_header, write_weights
from dirprune.cost import count_costs
from dirprune.data import load_data
from dirprune.evaluation import evaluate
from dirprune.importance import get_method, list_methods
from dirprune.networks import LeNet5, load_weights_
from dirprune.records.models import load_model
from dirprune.tasks import make_task
from tests.cli.conftest import Run


def read_table(output: str) -> dict[str, list[str]]:
    """Return the rows of the printed comparison by their label, and the columns' names under ""."""
    lines = [line for line in output.splitlines() if "  " in line]
    start = next(i for i, line in enumerate(lines) if line.startswith("validation accuracy")) - 1
    rows = {"": lines[start].split()}
    for line in lines[start + 1 : start + 5]:
        label, *cells = re.split(r"\s{2,}", line)
        rows[label] = cells
    return rows


def test_trained_weights_reach_the_accuracy_that_was_printed(run: Run) -> None:
    result = run("train", "--epochs", 2, "--train-images", 600, "--seed", 5)
    assert (result.status, result.errors) == (0, "")
    path = Path("output/lenet5-digits-seed5.safetensors")
    header = read_header(path)
    assert (header.network, header.dataset, header.validation_from) == ("lenet5", "digits", "train:0.1")
    assert (header.data_seed, header.train_images) == (5, 600)
    roles = load_data("digits", validation_from="train:0.1", train_limit=600, seed=5)
    network = LeNet5()
    load_weights_(network, path)
    metrics = evaluate(network, roles.validation, roles, make_task())
    table = read_table(result.output)
    assert table[""] == ["before", "after"]
    assert table["validation accuracy"][1] == f"{metrics['val_accuracy']:.4f}"
    assert table["MACs"] == ["498,750", "498,750"]
    assert table["parameters"] == ["40,225", "40,225"]
    assert float(table["test accuracy"][1]) > float(table["test accuracy"][0])
    assert "handwritten digits that come with scikit-learn" in result.output
    assert re.search(r"epoch 2/2  train loss \d.*val accuracy \d.*images/s  done in \d:\d\d", result.output)


def test_the_seed_of_training_matters_and_reproduces(run: Run) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        arguments = ["--epochs", 1, "--train-images", 200, "--seed", seed]
        run("train", *arguments, "--output", f"{name}.safetensors")
        digests.append(Path(f"{name}.safetensors").read_bytes()[-4000:])
    assert digests[0] == digests[1] != digests[2]


def test_early_stopping_ends_before_the_last_epoch(run: Run) -> None:
    result = run(
        "train", "--early-stopping", 1, "--train-images", 100, "--lr", 1e-9, "--output", "w.safetensors"
    )
    assert result.status == 0
    assert re.search(r"epoch 2/200  .*done in", result.output)


def test_scores_are_printed_and_written_and_found_again(run: Run, weights: Path) -> None:
    arguments = ["rank", "--weights", weights, "--method", "magnitude", "--method-options", "norm=l2"]
    first = run(*arguments, "--output", "scores.json")
    assert first.status == 0
    assert "computed" in first.output
    stored = json.loads(Path("scores.json").read_text())
    assert stored["method"] == {"name": "magnitude", "options": {"norm": "l2"}}
    assert {name: len(group["scores"]) for name, group in stored["groups"].items()} == {
        "conv1": 10,
        "conv2": 20,
        "linear1": 100,
        "linear2": 25,
    }
    network = LeNet5()
    load_weights_(network, weights)
    norms = network.linear2.weight.double().square().sum(dim=1).sqrt()
    torch.testing.assert_close(torch.tensor(stored["groups"]["linear2"]["scores"]).double(), norms.detach())
    order = stored["groups"]["linear2"]["order"]
    assert order == norms.argsort(descending=True).tolist()
    assert re.search(rf"linear2 +25 .* {' '.join(map(str, order[:5]))} ", first.output)
    again = run(*arguments)
    assert "from the cache" in again.output


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        ("other", "may have learnt any of the training set: validation from test:0.5"),
        ("", "note: train:0.1 as in training, on trust: the weights do not say of which data"),
    ],
)
def test_weights_of_other_data_are_not_judged_by_images_that_they_may_have_learnt(
    run: Run, weights: Path, identity: str, said: str
) -> None:
    header = read_header(weights)
    assert header.data_identity
    network = LeNet5()
    load_weights_(network, weights)
    write_weights(network, Path("other.safetensors"), header.changed(data_identity=identity))
    result = run("rank", "--weights", "other.safetensors", "--method", "random")
    assert said in result.output
    n_validation = 180 if identity else 144
    assert f"{n_validation} validation" in result.output
    assert said not in run("rank", "--weights", weights, "--method", "random").output


def test_rank_prints_what_the_network_measures(run: Run, weights: Path) -> None:
    result = run("rank", "--weights", weights, "--method", "random")
    assert (result.status, result.errors) == (0, "")
    roles, network = load_data("digits", validation_from="train:0.1", seed=3), LeNet5()
    load_weights_(network, weights)
    measured = {}
    for split, prefix in ((roles.validation, "val_"), (roles.test, "test_")):
        measured |= evaluate(network, split, roles, make_task(), prefix=prefix)
    assert read_table(result.output) == {
        "": ["network"],
        "validation accuracy": [f"{measured['val_accuracy']:.4f}"],
        "test accuracy": [f"{measured['test_accuracy']:.4f}"],
        "MACs": ["498,750"],
        "parameters": ["40,225"],
    }


def test_methods_are_listed_without_weights(run: Run) -> None:
    result = run("rank", "--list")
    assert (result.status, result.errors) == (0, "")
    for name in list_methods():
        assert f"\n{name}: " in f"\n{result.output}"
    assert max(map(len, result.output.splitlines())) <= 100


def test_list_says_what_a_method_needs_and_costs_and_can_be_narrowed(run: Run) -> None:
    assert run("rank", "--list", "leave*").output.splitlines() == [
        "leave-one-out: the increase of the loss when the channel alone is pruned",
        "    paper    Molchanov et al. 2017, arXiv:1611.06440 (there the oracle)",
        "    needs    weights, calibration images",
        "    costs    n + 1 coalitions a group, each one pass of what follows the group",
        "    options  value=loss",
        '      value: What is lost: "loss" (its increase) or "accuracy" (its decrease).',
    ]
    assert "      value: " not in run("rank", "--list", "shapley*").output


def test_a_pruned_model_is_smaller_and_loads_as_measured(run: Run, weights: Path) -> None:
    result = run("prune", "--weights", weights, "--method", "taylor", "--arch", "8,9,36,17")
    assert (result.status, result.errors) == (0, "")
    table = read_table(result.output)
    assert table[""] == ["dense", "pruned"]
    assert table["MACs"] == ["498,750", "236,366"]
    folder = Path("output/pruned/lenet5-taylor-8-9-36-17")
    model = load_model(folder)
    roles = load_data("digits", validation_from="train:0.1", seed=3)
    assert count_costs(model, roles.example_input()).macs == 236_366
    metrics = evaluate(model, roles.test, roles, make_task(), prefix="test_")
    assert table["test accuracy"][1] == f"{metrics['test_accuracy']:.4f}"
    stored = json.loads((folder / "architecture.json").read_text())
    assert stored["metrics"]["test_accuracy"] == pytest.approx(metrics["test_accuracy"])
    assert [group["n_kept"] for group in stored["groups"].values()] == [8, 9, 36, 17]


def test_retraining_improves_the_pruned_model_and_leaves_it_alone(run: Run, weights: Path) -> None:
    pruned = run(
        "prune", "--weights", weights, "--method", "random", "--arch", "6,9,20,12", "--output", "model"
    )
    before = Path("model/model.safetensors").read_bytes()
    for given in ("model", "model/model.safetensors", "model/architecture.json"):
        result = run("retrain", given, "--epochs", 2)
        assert (result.status, result.errors) == (0, "")
    table = read_table(result.output)
    assert table["validation accuracy"][0] == read_table(pruned.output)["validation accuracy"][1]
    assert float(table["validation accuracy"][1]) > float(table["validation accuracy"][0])
    assert table["MACs"][0] == table["MACs"][1] == read_table(pruned.output)["MACs"][1]
    assert Path("model/model.safetensors").read_bytes() == before
    assert Path("model-retrained/architecture.json").is_file()


def test_prune_with_retrain_does_both(run: Run, weights: Path) -> None:
    arguments = ["--method", "magnitude", "--arch", "5,9,20,12", "--retrain", "--epochs", 2]
    result = run("prune", "--weights", weights, *arguments, "--output", "model")
    table = read_table(result.output)
    assert table[""] == ["dense", "pruned", "retrained"]
    stored = json.loads(Path("model/architecture.json").read_text())["metrics"]
    assert table["validation accuracy"][2] == f"{stored['val_accuracy']:.4f}"
    assert float(table["validation accuracy"][2]) > float(table["validation accuracy"][1])


def test_validation_of_own_weights_is_what_their_training_left_out(run: Run, weights: Path) -> None:
    subject = subjects.trained_subject(weights, None, data_options())
    trained_on = load_data("digits", validation_from="train:0.1", seed=3).train
    assert subject.roles.validation.source == "train"
    assert not set(subject.roles.validation.indices.tolist()) & set(trained_on.indices.tolist())


def test_validation_of_foreign_weights_comes_from_the_held_out_set(
    run: Run, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = LeNet5()
    load_weights_(network, weights)
    torch.save(network.state_dict(), "foreign.pt")
    subject = subjects.trained_subject(Path("foreign.pt"), None, data_options())
    assert subject.roles.validation.source == subject.roles.test.source == "test"
    assert "may have seen the whole training set" in capsys.readouterr().out


def data_options() -> subjects.DataOptions:
    return subjects.DataOptions(None, None, None, None, 0, "cpu")


def test_scores_do_not_depend_on_validation_or_test(run: Run, weights: Path) -> None:
    arguments = ["rank", "--weights", weights, "--method", "fisher", "--train-images", 1000]
    for name, where in (("a", "test:0.5"), ("b", "test:0.3")):
        run(*arguments, "--validation-from", where, "--output", f"{name}.json")
    first, second = (json.loads(Path(f"{name}.json").read_text())["groups"] for name in "ab")
    assert first == second


def test_options_of_methods_may_be_given_in_short(run: Run, weights: Path) -> None:
    arguments = ["rank", "--weights", weights, "--train-images", 100]
    for number, given in enumerate((["--evaluations", 120], ["--method-options", "evaluations=120"])):
        result = run(*arguments, "--method", "shapley", *given, "--output", f"{number}.json")
        assert result.status == 0, result.errors  # where it takes long, its progress is told there
    first, second = (json.loads(Path(f"{number}.json").read_text()) for number in (0, 1))
    assert first["method"]["options"]["evaluations"] == 120
    assert first == second
    assert "from the cache" in result.output


def test_intervals_of_scores_are_shown_where_a_method_has_them(run: Run, weights: Path) -> None:
    arguments = ["rank", "--weights", weights, "--train-images", 100, "--output", "scores.json", "--method"]
    sampled = ["shapley-permutation", "--evaluations", 800]
    first = run(*arguments, *sampled)
    assert (first.status, first.errors) == (0, "")
    widths = json.loads(Path("scores.json").read_text())["groups"]["conv2"]["half_widths"]
    assert len(widths) == 20
    assert re.search(rf"conv2 +20 .* {float(torch.tensor(widths).median()):.2g}  +\d+ ", first.output)
    assert run(*arguments, *sampled).output.endswith(first.output.split("computed")[1])
    result = run(*arguments, "magnitude")
    assert "95%" not in result.output
    assert "half_widths" not in Path("scores.json").read_text()


@pytest.mark.parametrize("option", OPTIONS_OF_METHODS)
def test_each_short_option_is_one_of_some_method(option: str) -> None:
    assert any(option in get_method(name).options for name in list_methods())


def test_classes_that_calibration_lacks_are_said_in_one_line(run: Run, weights: Path) -> None:
    arguments = ["rank", "--weights", weights, "--method", "leave-one-out", "--train-images"]
    result = run(*arguments, 14)
    assert (result.status, result.errors) == (0, "")
    (note,) = [line for line in result.output.splitlines() if line.startswith("note: ")]
    assert re.match(r"note: calibration has no image of class \d, \d, \d, so scores", note)
    assert "7 of them calibration" in result.output
    assert "note: " not in run(*arguments, 20).output


def test_interrupting_leaves_one_line_and_no_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_kept_", interrupted)
    result = run("train", "--epochs", 1)
    assert (result.status, result.errors) == (130, "interrupted\n")
    assert list(Path().rglob("*")) == []


def test_what_an_abandoned_training_left_goes_when_another_one_for_the_same_output_has_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["train", "--train-images", 100, "--output", "out.safetensors", "--epochs"]
    with monkeypatch.context() as context:

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        context.setattr(training.TrainingProgress, "show", interrupt)
        assert run(*given, 3).status == 130
        assert run(*given, 4).status == 130
    first, second = sorted(path.name for path in Path().glob("*.state.pt"))
    elsewhere = Path(first.replace("out.safetensors", "out"))
    elsewhere.write_bytes(b"of a pruned model of that name")
    result = run(*given, 2)
    assert (result.status, result.errors) == (0, "")
    said = f"{first}, {second}: of other settings; removed when this training has ended"
    assert said in result.output.splitlines()
    assert list(Path().glob("*.state.pt")) == [elsewhere]
    assert "of other settings" not in run(*given, 2).output


def test_an_architecture_as_printed_is_accepted(run: Run, weights: Path) -> None:
    arch = str(Architecture({"conv1": 8, "conv2": 9, "linear1": 36, "linear2": 17}))
    result = run("prune", "--weights", weights, "--method", "random", "--arch", arch, "--output", "model")
    assert result.status == 0


def test_version_and_help_leave_with_status_zero(run: Run) -> None:
    assert run("--version").output.startswith("dirprune, version ")
    for arguments in ([], ["--help"], ["prune", "--help"]):
        result = run(*arguments)
        assert (result.status, result.errors) == (0, "")
        assert "Usage: dirprune" in result.output


OWN = """
from torch import nn


def small():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    )
"""


def test_ones_own_network_goes_through_all_steps_when_its_file_is_named(run: Run) -> None:
    Path("nets").mkdir()
    Path("nets/own.py").write_text(OWN)
    own = ("--network", "nets/own.py:small")
    trained = run("train", *own, "--epochs", 1, "--train-images", 300)
    assert (trained.status, trained.errors) == (0, "")
    weights = Path("output/own-small-digits-seed0.safetensors")
    assert read_header(weights).network == "own.py:small"

    pruning = ("prune", "--weights", weights, "--method", "taylor", "--arch", "3-4", "--output", "pruned")
    for step in (("rank", "--weights", weights, "--method", "taylor"), pruning):
        without = run(*step)
        assert without.status == 2
        assert "is your own; try again with --network own.py:small" in without.errors
        assert run(*step, *own).status == 0

    without = run("retrain", "pruned", "--epochs", 1)
    assert without.status == 2
    assert "is your own; try again with --network FILE.py:small" in without.errors
    Path("other.py").write_text(OWN.replace("32, 10", "32, 12"))
    other = run("retrain", "pruned", "--epochs", 1, "--network", "other.py:small")
    assert other.status == 2
    assert "whose source is another" in other.errors
    assert run("retrain", "pruned", "--epochs", 1, *own).status == 0
    wrong = run("rank", "--weights", weights, "--method", "taylor", "--network", "lenet5")
    assert wrong.status == 2
    assert "expected weights of lenet5, but" in wrong.errors
    smaller = load_model("pruned-retrained", find_in_file("nets/own.py:small", ""))
    assert smaller[0].weight.shape[0] == 3


def test_macs_that_are_not_counted_are_told_where_a_network_is_ranked_or_cut(run: Run) -> None:
    source = OWN.replace("return nn.Sequential(", "return nn.Sequential(Mixing(),").replace(
        "def small",
        """class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.eye(28))

    def forward(self, images):
        return images @ self.mix


def small""",
    )
    network = make_own(f"import torch\n{source}")
    write_weights(network, Path("own.safetensors"), Header(network="elsewhere.py:small", dataset="digits"))
    given = ("--weights", "own.safetensors", "--network", "elsewhere.py:small", "--method", "magnitude")
    for step in (("rank", *given), ("prune", *given, "--arch", "3-4")):
        done = run(*step)
        assert done.status == 0, done.errors
        assert "784 parameters (" in done.errors
        assert "lie in layers whose MACs are not counted: 0 (Mixing)" in done.errors


@pytest.mark.parametrize("place", ["torchvision/trap.py:small", "torchvision/trap:small"])
def test_what_weights_name_is_never_run(run: Run, place: str) -> None:
    Path("torchvision").mkdir()
    Path("torchvision/trap.py").write_text(f"open('sprung', 'w').close()\n{OWN}")
    weights = Path("weights.safetensors")
    write_weights(make_own(OWN), weights, Header(network=place, dataset="digits"))
    refused = run("rank", "--weights", weights, "--method", "magnitude")
    assert refused.status == 2
    assert not Path("sprung").exists()


def make_own(source: str) -> torch.nn.Module:
    """Return the network that a file of one's own makes."""
    Path("elsewhere.py").write_text(source)
    return find_in_file("elsewhere.py:small", "")()


def test_weights_of_a_study_of_ones_own_network_are_ranked(run: Run) -> None:
    Path("own.py").write_text(OWN)
    header = Header(network="small", dataset="digits", validation_from="train:0.1")
    write_weights(find_in_file("own.py:small", "")(), Path("dense.safetensors"), header)
    ranking = ("rank", "--weights", "dense.safetensors", "--method", "magnitude")
    without = run(*ranking)
    assert without.status == 2
    assert "is your own; try again with --network FILE.py:small" in without.errors
    assert run(*ranking, "--network", "own.py:small").status == 0
    other = run(*ranking, "--network", "own.py:nn")
    assert other.status == 2
    assert "says that it holds small; try that one" in other.errors

"""`dirprune rank` shows what decides: paths, comparisons, noise, and where all came from."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dirprune.architecture import Architecture
from dirprune.cli.prune import format_kept, name_folder
from dirprune.cli.rank import format_correlations, format_scores
from dirprune.cli.subjects import ORIGIN
from dirprune.cli.weights import read_header, write_weights
from dirprune.cost import CostModel
from dirprune.groups import ChannelGroup, Grouping
from dirprune.importance import registry
from dirprune.importance.gradients import Taylor
from dirprune.importance.greedy import path
from dirprune.importance.shapley import ShapleyScorer
from dirprune.latency import LatencyModel
from dirprune.networks import LeNet5, create_network, load_weights_, save_weights
from dirprune.records.models import load_model
from tests.cli.conftest import Run
from tests.data.photograph_folders import write_folders


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.slow
def test_greedy_path_shows_networks_that_prune_takes(run: Run, weights: Path) -> None:
    few = ("--train-images", 200, "--method-options", "n_examples=50", "--method-options", "step=0.5")
    result = run("rank", "--weights", weights, "--method", "greedy-path", *few, "--output", "path.json")
    assert result.status == 0, result.errors
    lines = result.output.split("right after pruning and recalibration:")[1].splitlines()
    assert lines[1].split()[-1] == "--arch"
    assert len(lines[2].split()[-1].split(",")) == 4
    stored = json.loads(Path("path.json").read_text())
    shares = [point["share"] for point in stored["path"]]
    assert shares == sorted(shares, reverse=True)
    assert all(point["share"] <= 0.9 for point in stored["path"])
    pruned = run(
        "prune", "--weights", weights, "--method", "random", "--arch", stored["path"][0]["architecture"]
    )
    assert pruned.status == 0, pruned.errors
    assert f"{stored['path'][0]['macs']:,}" in pruned.output


OWN = """
from dirprune.importance import Scorer, register

@register("mine", "its place", cost="none", needs_data=False, needs_gradients=False, stochastic=False)
class Mine(Scorer):
    def score(self, context):
        return {group.name: place(group.n_channels) for group in context.grouping.groups}

def place(n):
    return list(range(n))
"""


def test_a_method_of_ones_own_is_named_by_its_file_and_computed_anew_when_that_changes(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "_own_mine", raising=False)
    file = Path("mine.py")
    file.write_text(OWN)
    given = ("rank", "--weights", weights, "--method", "mine.py:mine", "--output", "scores.json")
    first = run(*given, "--compare", "mine.py:mine")
    assert first.status == 0, first.errors
    assert "mine: scores computed" in first.output
    assert json.loads(Path("scores.json").read_text())["groups"]["conv1"]["order"] == list(range(10))[::-1]
    assert "mine: scores from the cache" in run(*given).output
    file.write_text(OWN.replace("list(range(n))", "list(range(n))[::-1]"))
    del sys.modules["_own_mine"]  # as in another process
    changed = run(*given)
    assert "mine: scores computed" in changed.output
    assert json.loads(Path("scores.json").read_text())["groups"]["conv1"]["order"] == list(range(10))
    pruned = run("prune", "--weights", weights, "--method", "mine.py:mine", "--arch", "8,9,36,17")
    assert pruned.status == 0, pruned.errors
    assert Path("output/pruned/lenet5-mine-8-9-36-17").is_dir()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("none.py:mine", "expected a file with the method in --method, found none at none.py"),
        ("mine.py:min", "expected mine.py to register the method 'min'; did you mean 'mine'? known: mine"),
        ("mine.py", "expected --method FILE.py:NAME, got 'mine.py'; try mine.py:NAME"),
        ("mine.py:random", "expected mine.py to register the method 'random'; known: mine"),
        ("exits.py:mine", 'exits.py cannot be run: SystemExit: 3; try it below if __name__ == "__main__":'),
        (
            "front.py:neigh",
            "expected front.py to register the method 'neigh', it is registered by neigh; try neigh.py:neigh",
        ),
        ("bad.py:mine", "bad.py cannot be run: ZeroDivisionError: division by zero"),
        (
            "taken.py:fisher",
            "taken.py cannot be run: ImportanceError: importance method 'fisher' is taken",
        ),
    ],
)
def test_a_place_of_ones_own_method_that_does_not_work_ends_in_a_line(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch, method: str, message: str
) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(OWN)
    Path("taken.py").write_text(OWN.replace('"mine"', '"fisher"'))
    Path("exits.py").write_text("import sys\nsys.exit(3)")
    Path("bad.py").write_text("1 / 0")
    Path("neigh.py").write_text(OWN.replace('"mine"', '"neigh"'))
    Path("front.py").write_text("import neigh")
    monkeypatch.delitem(sys.modules, "neigh", raising=False)
    for _ in range(2):
        refused = run("prune", "--weights", weights, "--method", method, "--arch", "8,9,36,17")
        assert refused.status == 2
        assert message in refused.errors


@pytest.mark.slow
def test_a_path_by_parameters_is_shown_by_them(run: Run, weights: Path) -> None:
    few = ("--train-images", 200, "--method-options", "n_examples=50", "--method-options", "step=0.5")
    of = ("--method", "greedy-path", "--cost", "parameters")
    result = run("rank", "--weights", weights, *of, *few, "--output", "path.json")
    assert result.status == 0, result.errors
    assert "shares of parameters" in result.output
    first, *_ = json.loads(Path("path.json").read_text())["path"]
    dense = count_parameters(create_network("lenet5"))
    assert first["share"] == first["parameters"] / dense <= 0.9


@pytest.mark.slow
def test_a_path_by_latency_is_measured_once_and_shown_by_it(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_fits = 0

    def pretend(
        network: nn.Module, grouping: Grouping, inputs: torch.Tensor, **others: object
    ) -> LatencyModel:
        nonlocal n_fits
        n_fits += 1
        n_pairs = len(CostModel(network, grouping, inputs).macs_by_pair(grouping.n_channels))
        return LatencyModel(1.0, (1e-5,) * n_pairs, 0.1, {})

    monkeypatch.setattr(path, "fit_latency", pretend)
    few = ("--train-images", 200, "--method-options", "n_examples=50", "--method-options", "step=0.5")
    given = ("rank", "--weights", weights, "--method", "greedy-path", "--cost", "latency", *few)
    for _ in range(2):
        result = run(*given, "--budget", 2.5, "--output", "path.json")
        assert result.status == 0, result.errors
        assert n_fits == 1
    assert "shares of latency, right after" in result.output
    table = result.output.split("within 2.5 ms:")[1].splitlines()
    assert table[1].split()[:4] == ["removed", "MACs", "parameters", "ms"]
    stored = json.loads(Path("path.json").read_text())
    for point in (*stored["path"], stored["within_budget"]):
        assert point["cost"] == pytest.approx(1 + 1e-5 * point["macs"])
        assert point["share"] == pytest.approx(point["cost"] / (1 + 1e-5 * 498_750))
    assert stored["within_budget"]["cost"] <= 2.5
    assert table[2].split()[-1] == stored["within_budget"]["architecture"]


def test_a_budget_is_of_paths_and_not_below_the_smallest_network(run: Run, weights: Path) -> None:
    result = run("rank", "--weights", weights, "--method", "taylor", "--budget", 1e5)
    assert (result.status, result.errors) == (
        2,
        "error: --budget is of greedy-path, got taylor; leave it out\n",
    )
    result = run("rank", "--weights", weights, "--method", "greedy-path", "--budget", 100)
    assert result.status == 2
    assert "--budget must be at least " in result.errors
    assert "what one channel in each group costs, got 100" in result.errors
    assert not list(Path("output/scores").rglob("*.jsonl"))


def test_shapley_values_without_intervals_say_so(run: Run, weights: Path) -> None:
    few = ("--train-images", 200, "--k", 1)
    result = run("rank", "--weights", weights, "--method", "shapley-partial", *few)
    assert result.status == 0, result.errors
    assert "no intervals: shapley-partial" in result.output
    assert "no intervals" not in run("rank", "--weights", weights, "--method", "taylor", *few[:2]).output


def test_methods_are_compared_and_drawn(run: Run, weights: Path) -> None:
    compared = ("--compare", "taylor", "--compare", "bn-scale", "--train-images", 200)
    result = run("rank", "--weights", weights, "--method", "taylor", *compared, "--plot", "scores.png")
    assert result.status == 0, result.errors
    table = result.output.split("(Spearman):")[1].splitlines()
    assert table[1].split() == ["group", "taylor", "bn-scale"]
    assert table[2].split()[:2] == ["conv1", "+1.00"]
    assert Path("scores.png").read_bytes().startswith(b"\x89PNG")


def test_scores_file_says_what_they_depend_on(run: Run, weights: Path) -> None:
    run("rank", "--weights", weights, "--method", "magnitude", "--seed", 3, "--output", "scores.json")
    stored = json.loads(Path("scores.json").read_text())
    assert stored["seed"] == 3
    assert stored["data"]["name"] == "digits"
    assert stored["data"]["validation_from"] == "train:0.1"
    assert stored["data"]["n_calibration"] > 0


def test_an_output_that_cannot_be_made_ends_in_one_line(run: Run, weights: Path) -> None:
    result = run("rank", "--weights", weights, "--method", "random", "--output", "/proc/none/scores.json")
    assert result.status == 2
    assert result.errors.startswith("error: expected")
    assert "Traceback" not in result.errors


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--plot", "scores.svg"), "expected --plot to end in .png, got scores.svg; try scores.png"),
        (
            ("--output", "a.png", "--plot", "../working/a.png"),
            "expected a file of its own for --plot, got ../working/a.png for --output too; try another",
        ),
        (("--plot", "/dev/null/scores.png"), "try another --plot"),
    ],
)
def test_a_picture_is_a_png_of_its_own(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    result = run("rank", "--weights", "w.safetensors", "--method", "random", *arguments)
    assert (result.status, result.output, result.errors.count("\n")) == (2, "", 1)
    assert expected in result.errors
    assert not list(Path().iterdir())


def test_a_budget_that_fits_no_group_names_them_all_and_what_would_fit(run: Run, weights: Path) -> None:
    result = run("rank", "--weights", weights, "--method", "shapley", "--evaluations", 11)
    assert result.status == 2
    assert "conv1: evaluations must be at least 12" in result.errors
    assert (
        "(nor do the options fit conv2, linear1, linear2; 102 evaluations fit every group)" in result.errors
    )
    result = run("rank", "--weights", weights, "--method", "shapley-kernel", "--evaluations", 199)
    assert "linear1: evaluations must be at least 200 for a group of 100 channels, got 199;" in result.errors
    assert "fit every group" not in result.errors


def test_an_order_that_is_noise_is_marked() -> None:
    scores = {"sure": torch.tensor([3.0, 2.0, 1.0]), "noise": torch.tensor([1.1, 1.0, 0.9])}
    widths = {"sure": torch.full((3,), 0.1), "noise": torch.full((3,), 0.5)}
    told = format_scores(scores, widths)
    assert "WARNING: in noise the intervals are wider" in told
    assert "95% +-: half the width" in told
    assert "WARNING" not in format_scores(scores, {})


def test_equal_scores_have_no_order() -> None:
    scores = {"conv": torch.tensor([3.0, 2.0, 1.0])}
    told = format_correlations(scores, {"flat": {"conv": torch.ones(3)}})
    assert told.splitlines()[1].split() == ["conv", "no", "order"]


def test_kept_channels_are_told_as_runs() -> None:
    grouping = Grouping((ChannelGroup("conv", 12, (), ()),))
    table = format_kept({"conv": [0, 1, 2, 5, 8, 9]}, grouping).splitlines()
    assert table[1].split() == ["conv", "6", "12", "0-2", "5", "8-9"]


def test_weights_of_another_number_of_classes_take_that_of_the_data(run: Run, tmp_path: Path) -> None:
    write_folders(tmp_path / "photographs")
    data = ("--data", tmp_path / "photographs", "--dataset", "folders:32")
    for n_classes in (3, 10):
        torch.save(
            create_network("resnet20", {"n_classes": n_classes}).state_dict(), tmp_path / f"{n_classes}.pt"
        )
    given = ("--network", "resnet20", "--weights", tmp_path / "3.pt", *data, "--method", "magnitude")
    half = ("--arch", ",".join(["8"] * 3 + ["16"] * 3 + ["32"] * 3), "--output", tmp_path / "small")
    pruned = run("prune", *given, *half)
    assert pruned.status == 0, pruned.errors
    assert "may have seen the whole training set" in pruned.output
    assert load_model(tmp_path / "small")(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    refused = run("rank", *given[:3], tmp_path / "10.pt", *given[4:])
    assert refused.status == 2
    assert "is it of 10 classes?" in refused.errors


def test_the_folder_of_a_network_with_many_groups_has_a_name_that_the_system_takes(
    run: Run, tmp_path: Path
) -> None:
    names = [letter * 230 for letter in ("n", "\u00e4")]
    Path("own.py").write_text(
        "from dirprune.networks import LeNet5\n" + "".join(f"class {name}(LeNet5): pass\n" for name in names)
    )
    save_weights(create_network("lenet5", seed=0), tmp_path / "lenet.safetensors")
    for name in names:
        given = ("--weights", tmp_path / "lenet.safetensors", "--network", f"own.py:{name}")
        pruned = run("prune", *given, "--method", "random", "--arch", "8,9,36,17", "--retrain", "--epochs", 1)
        assert pruned.status == 0, pruned.errors
        network = ("--network", f"own.py:{name}")
        (folder,) = (path for path in Path("output/pruned").iterdir() if path.name[4] == name[0])
        assert len(folder.name.encode()) in (149, 150)
        for again in (folder, folder.with_name(f"{folder.name}-retrained")):
            retrained = run("retrain", again, *network, "--epochs", 1)
            assert retrained.status == 0, retrained.errors
    many = [Architecture({f"g{place}": 8 + place % last for place in range(130)}) for last in (3, 4)]
    folders = [name_folder("torchvision/densenet121", "fpgm", architecture) for architecture in many]
    assert folders[0][:30] == folders[1][:30] == "torchvision-densenet121-fpgm-8"
    assert folders[0] != folders[1]
    assert name_folder("a.py:net", "fpgm", Architecture({"a": 8, "b": 9})) == "a-net-fpgm-8-9"


def test_validation_on_images_that_the_weights_have_learnt_is_warned_of(run: Run, tmp_path: Path) -> None:
    save_weights(create_network("lenet5", seed=0), tmp_path / "lenet.safetensors")
    given = ("rank", "--weights", tmp_path / "lenet.safetensors", "--method", "magnitude")
    assert "WARNING" not in run(*given).output
    assert (
        "WARNING: these weights have probably learnt" in run(*given, "--validation-from", "train:0.1").output
    )


def test_validation_cut_otherwise_than_in_training_is_warned_of_in_every_step(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    warning = "WARNING: these weights have probably learnt these images"
    given = ("rank", "--weights", weights, "--method", "magnitude")
    assert warning not in run(*given).output
    assert warning not in run(*given, "--validation-from", "train:0.1").output  # that of the training
    assert f"{warning}, so that validation measures memory; try train:0.1" in (
        run(*given, "--validation-from", "train:0.3").output
    )
    save_weights(create_network("lenet5", seed=0), tmp_path / "foreign.safetensors")
    pruning = ("--method", "magnitude", "--arch", "5,9,20,12", "--output", "model")
    assert run("prune", "--weights", tmp_path / "foreign.safetensors", *pruning).status == 0
    learnt = ("retrain", "model", "--epochs", 1, "--validation-from", "train:0.1")
    assert f"{warning}, so that validation measures memory; try test:0.5" in run(*learnt).output


def test_a_cut_that_was_warned_of_does_not_become_that_of_what_is_stored(run: Run, tmp_path: Path) -> None:
    save_weights(create_network("lenet5", seed=0), tmp_path / "foreign.safetensors")
    cut = ("--validation-from", "train:0.1")
    pruning = ("--method", "magnitude", "--arch", "5,9,20,12", *cut, "--output", "foreign")
    run("prune", "--weights", tmp_path / "foreign.safetensors", *pruning)
    assert "WARNING: these weights have probably" in run("retrain", "foreign", "--epochs", 1, *cut).output
    assert read_cut("foreign-retrained") == read_cut("foreign") == "test:0.5"


def test_what_was_pruned_by_another_cut_is_not_judged_by_what_its_pruning_may_have_learnt(
    run: Run, weights: Path
) -> None:
    """By test:0.3 calibration is drawn from the whole training set, also from validation of train:0.1."""
    pruning = ("prune", "--weights", weights, "--method", "magnitude", "--arch", "5,9,20,12", "--output")
    run(*pruning, "own")
    assert read_cut("own") == "train:0.1"
    run(*pruning, "refitted", "--reconstruct", "--validation-from", "test:0.3")
    assert read_cut("refitted") == "test:0.3"  # by which it was measured, too
    result = run("retrain", "refitted", "--epochs", 1, "--validation-from", "train:0.1")
    assert "have probably learnt these images, so that validation measures memory; try test:0.3" in (
        result.output
    )


def test_a_cut_of_other_data_that_was_warned_of_does_not_become_that_of_what_is_stored(
    run: Run, weights: Path
) -> None:
    network = LeNet5()
    load_weights_(network, weights)
    write_weights(network, Path("other.safetensors"), read_header(weights).changed(data_identity="other"))
    warning = "any of the training set; try test:0.5"
    pruning = ("--method", "magnitude", "--arch", "5,9,20,12", "--retrain", "--epochs", 1)
    pruned = run(
        "prune", "--weights", "other.safetensors", *pruning, "--validation-from", "train:0.1", "--output", "m"
    )
    assert warning in pruned.output
    assert read_cut("m") == "test:0.5"
    result = run("retrain", "m", "--epochs", 1)
    assert "180 validation" in result.output
    assert "WARNING" not in result.output


def read_cut(model: str) -> str:
    """Return how the data were cut so that validation holds nothing that a stored model has learnt."""
    return json.loads(Path(model, "architecture.json").read_text())["network"][ORIGIN]["validation_from"]


def test_weights_of_another_data_set_are_taken_to_have_seen_the_whole_training_set(
    run: Run, weights: Path
) -> None:
    network = LeNet5()
    load_weights_(network, weights)
    header = read_header(weights).changed(dataset="mnist", data_identity="other")
    write_weights(network, Path("other.safetensors"), header)
    given = ("rank", "--weights", "other.safetensors", "--dataset", "digits", "--method", "magnitude")
    for cut in ("train:0.1", "train:0.3"):
        result = run(*given, "--validation-from", cut)
        assert "may have learnt any of the training set; try test:0.5" in result.output


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ((), "nothing is kept: the scores of taylor are not whole; the same command begins anew"),
        (
            ("magnitude",),
            "kept in output/scores: the scores of magnitude; the same command goes on from there",
        ),
    ],
)
def test_ctrl_c_says_what_is_kept_of_scores_that_are_not_kept_in_parts(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch, first: tuple[str, ...], said: str
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Taylor, "score", interrupt)
    method, *others = (*first, "taylor")
    compared = [argument for other in others for argument in ("--compare", other)]
    result = run("rank", "--weights", weights, "--method", method, *compared)
    assert (result.status, result.errors) == (130, f"{said}\ninterrupted\n")
    if not first:
        result = run("prune", "--weights", weights, "--method", "taylor", "--arch", "8,9,36,17")
        assert (result.status, result.errors) == (130, f"{said}\ninterrupted\n")


def test_shapley_values_are_estimated_once_and_their_intervals_kept(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate, n_calls = ShapleyScorer.estimate, 0

    def count(self: ShapleyScorer, context: object) -> object:
        nonlocal n_calls
        n_calls += 1
        return estimate(self, context)  # type: ignore[arg-type]

    monkeypatch.setattr(ShapleyScorer, "estimate", count)
    given = ("rank", "--weights", weights, "--method", "shapley", "--evaluations", 240, "--train-images", 100)
    first = run(*given)
    assert (first.status, n_calls) == (0, 1), first.errors
    assert "shapley: scores computed\n" in first.output
    shutil.rmtree("output/scores/coalitions")
    again = run(*given)
    assert n_calls == 1
    assert "shapley: scores from the cache\n" in again.output
    table = [each.output.split("shapley: scores")[1].split("\n", 1)[1] for each in (first, again)]
    assert table[0] == table[1]
    assert "95% +-" in table[0]


def test_intervals_that_only_the_cache_of_scores_lacks_are_said_to_be_computed(
    run: Run, weights: Path
) -> None:
    given = ("--weights", weights, "--method", "shapley-partial", "--train-images", 100)
    assert run("prune", *given, "--arch", "8,9,36,17").status == 0
    assert "shapley-partial: scores from the cache, intervals computed\n" in run("rank", *given).output
    assert "shapley-partial: scores from the cache\n" in run("rank", *given).output

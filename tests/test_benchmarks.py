"""The benchmarks of importance at their smallest: they run, go on, and print what they measured."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dirprune.groups import ChannelGroup, Grouping
from dirprune.importance.coalitions.values import CoalitionValues
from dirprune.importance.shapley import Estimate
from dirprune.importance.simplex.dirichlet import DirichletPosterior
from dirprune.networks import create_network
from dirprune.switches import mask, switched
from dirprune.tracing import find_groups

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts, imported as the command line does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import importance
    import importance_common
    import importance_estimates
    import importance_methods

    loaded = (importance, importance_common, importance_estimates, importance_methods)
    return {module.__name__: module for module in loaded}


@pytest.fixture(autouse=True)
def _forget_scripts(monkeypatch: pytest.MonkeyPatch):
    yield
    for name in [name for name in sys.modules if name == "importance" or name.startswith("importance_")]:
        del sys.modules[name]


def run(main: click.Command, output: Path, *arguments: str) -> str:
    result = CliRunner().invoke(
        main, ["--output", str(output), "--quick", *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.stdout


def test_rows_are_measured_once_and_reported(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    main = modules["importance"].main
    choice = ("after-pruning", "--subjects", "lenet5", "--methods", "random;magnitude L1")
    run(main, tmp_path, *choice)
    rows = (tmp_path / "after-pruning.jsonl").read_text().splitlines()
    assert len(rows) == 2 * (2 + 2 + 1)
    run(main, tmp_path, *choice)
    assert (tmp_path / "after-pruning.jsonl").read_text().splitlines() == rows

    (tmp_path / "after-pruning.jsonl").write_text("\n".join([*rows[:-1], rows[-1][:30]]))
    run(main, tmp_path, *choice)
    again = [
        json.loads(line)
        for line in (tmp_path / "after-pruning.jsonl").read_text().splitlines()
        if line != rows[-1][:30]
    ]
    assert [row["key"] for row in again] == [json.loads(row)["key"] for row in rows]

    text = run(main, tmp_path, "report")
    of_random = [row["values"]["after"] for row in again if row["key"]["variant"] == "random"][:2]
    assert "### Accuracy right after pruning" in text
    assert f"| {100 * np.mean(of_random):.1f} |" in next(
        line for line in text.splitlines() if line.startswith("| random |")
    )
    assert (tmp_path / "after-pruning-lenet5.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_folder_with_rows_of_other_weights_or_versions_is_refused(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    main, path = modules["importance"].main, tmp_path / "made-of.json"
    choice = ("after-pruning", "--subjects", "lenet5", "--methods", "magnitude L1")
    run(main, tmp_path, *choice)
    made_of = json.loads(path.read_text())
    made_of["method_versions"]["magnitude"] += 1
    path.write_text(json.dumps(made_of))
    result = CliRunner().invoke(main, ["--output", str(tmp_path), "--quick", *choice])
    assert result.exit_code == 2
    assert "other method versions (magnitude)" in " ".join(result.stderr.split())

    path.unlink()
    result = CliRunner().invoke(main, ["--output", str(tmp_path), "--quick", *choice])
    assert result.exit_code == 2
    assert "has rows, and no made-of.json that says of what" in " ".join(result.stderr.split())

    (tmp_path / "after-pruning.jsonl").unlink()
    weights = tmp_path / "one.safetensors"
    weights.write_bytes(b"one")
    run(main, tmp_path, *choice)
    run(main, tmp_path, "--vgg16", str(weights), *choice)  # of random ones no rows were there
    for content in (b"another", None):
        given = ["--vgg16", str(weights)] if content else []
        weights.write_bytes(content or b"")
        result = CliRunner().invoke(main, ["--output", str(tmp_path), "--quick", *given, *choice])
        assert result.exit_code == 2
        assert "other weights (vgg16)" in " ".join(result.stderr.split())
    given = ["--output", str(tmp_path), "--vgg16", str(weights), "--cifar", str(tmp_path)]
    weights.write_bytes(b"one")
    result = CliRunner().invoke(main, [*given, *choice])
    assert result.exit_code == 2
    assert "other data or sizes (cifar, quick)" in " ".join(result.stderr.split())


def test_older_rows_that_do_not_say_how_many_images_are_of_the_default(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    key = {"variant": "random", "seed": 0, "architecture": "8-9-36-17", "repair": "recalibrated"}
    values = {"before": 0.5, "after": 0.9, "n_steps": 300}
    rows = [
        {"key": {**key, "subject": "lenet5-0", **more}, "values": values} for more in ({}, {"n_images": 200})
    ]
    (tmp_path / "after-fine-tuning.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = run(modules["importance"].main, tmp_path, "report")
    assert "| random, 1,000 images, recalibrated | 50.00 | 90.00 |" in text
    assert "| random, 200 images, recalibrated | 50.00 | 90.00 |" in text


@pytest.mark.slow
def test_fine_tuning_is_measured_and_reported_for_each_network(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    choice = (
        "--methods",
        "random;magnitude L1",
        "--repairs",
        "recalibrated",
        "--subjects",
        "lenet5,resnet20",
    )
    run(modules["importance"].main, tmp_path, "after-fine-tuning", *choice)
    text = run(modules["importance"].main, tmp_path, "report")
    for subject in ("lenet5", "resnet20"):
        table = text.partition(f"{subject}, 5 steps")[2].splitlines()
        row = next(line for line in table if line.startswith("| random, recalibrated |"))
        assert 0 <= float(row.split("|")[-2]) <= 100
        assert (tmp_path / f"after-fine-tuning-{subject}.png").stat().st_size > 1000


@pytest.mark.slow
def test_forms_of_greedy_elimination_are_compared_at_equal_costs(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    choice = ("greedy-forms", "--subjects", "lenet5", "--costs", "macs,parameters", "--methods", "random")
    run(modules["importance"].main, tmp_path, *choice)
    rows = [json.loads(line) for line in (tmp_path / "greedy-forms.jsonl").read_text().splitlines()]
    widths = {(row["key"]["widths"], row["key"]["architecture"]) for row in rows}
    assert len(rows) == 7  # two paths and random, in even widths and in their own; random there once
    assert len(widths) == len({name for name, _ in widths}) == 3
    assert all(0.5 < row["values"]["macs"] <= 0.7 for row in rows)
    text = run(modules["importance"].main, tmp_path, "report")
    assert "| equal keep ratios | greedy-path, macs |" in text

    for row in rows:
        row["values"]["architecture"] = row["key"].pop("architecture")
    older = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "greedy-forms.jsonl").write_text(older)
    run(modules["importance"].main, tmp_path, *choice)
    assert (tmp_path / "greedy-forms.jsonl").read_text() == older, "rows of older keys count"


def test_a_path_that_is_measured_again_is_not_mixed_with_the_earlier_one(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    rows = modules["importance_common"].Rows(tmp_path / "greedy-forms.jsonl")
    key = {"subject": "lenet5-0", "widths": "path", "variant": "random", "target": 0.7}
    older = {"before": 0.1, "after": 0.2, "macs": 0.7, "architecture": "8-20"}
    rows.add({**key, "seed": 0, "n_images": 1000}, older)  # as keys were
    rows.add({**key, "seed": 0, "n_images": 1000, "architecture": "7-21"}, {"before": 0.3, "after": 0.4})
    rows.add({**key, "seed": 1, "n_images": 1000, "architecture": "7-21"}, {"before": 0.3, "after": 0.6})
    rows.add({**key, "seed": 0, "n_images": 100}, {**older, "after": 0.9})
    text = run(modules["importance"].main, tmp_path, "report")
    _, of_few, of_many = text.split("lenet5, ")
    assert of_few.startswith("100 images")
    assert "| 10.0 | 90.0 |" in of_few
    assert of_many.startswith("1000 images")
    assert "| 30.0 ± 0.0 | 50.0 ± 14.1 |" in of_many


def test_errors_against_different_truths_have_tables_of_their_own(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    name_truth = modules["importance_estimates"].name_truth
    assert name_truth(20, 400_000, 20) == name_truth(8, 2_000_000, 25) == {}
    assert name_truth(100, 2_000_000, 20) == {"truth": 2_000_000}
    assert name_truth(25, 400_000, 25) == {"truth": 2**25}
    rows = modules["importance_common"].Rows(tmp_path / "shapley-error.jsonl")
    key = {"subject": "lenet5-0", "group": "linear1", "method": "shapley", "evaluations": 30, "seed": 0}
    for truth, found in (({}, 0.25), ({"truth": 2_000_000}, 0.75)):
        rows.add({**key, **truth}, {"spearman": found, "overlap": found, "rmse": found, "covered": None})
    text = run(modules["importance"].main, tmp_path, "report")
    _, older, newer = text.split("spearman, linear1")
    assert "| shapley | 0.25 |" in older
    assert newer.startswith(", truth of 2,000,000 evaluations, by evaluations")
    assert "| shapley | 0.75 |" in newer


def test_planted_pairs_are_what_they_are_called(modules: dict[str, ModuleType]) -> None:
    torch.manual_seed(0)
    network = create_network("lenet5").eval()
    images = torch.randn(4, 1, 28, 28)
    group = find_groups(network, images).groups[1]
    planted = importlib.import_module("importance_planted").plant(network, group, torch.arange(20.0))
    assert (planted.together, planted.substitutes) == ((1, 2), (0, 19))

    def outputs(*left: int) -> torch.Tensor:
        grouping = Grouping((group,))
        kept = {group.name: [channel for channel in range(20) if channel not in left]}
        with torch.no_grad(), switched(planted.network, grouping, mask(grouping, kept)):
            return planted.network(images)

    torch.testing.assert_close(outputs(), outputs(1, 2))
    assert not torch.allclose(outputs(), outputs(1), atol=1e-3)
    torch.testing.assert_close(outputs(0), outputs(19))


@pytest.mark.slow
def test_planted_pairs_are_looked_for_once(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    run(modules["importance"].main, tmp_path, "planted-pairs", "--groups", "conv1")
    text = run(modules["importance"].main, tmp_path, "report")
    assert "| posterior | strength | conv1 (45 pairs): together | substitutes |" in text
    assert "| laplace | 1 | " in text


@pytest.mark.parametrize("command", ["after-pruning", "after-fine-tuning"])
def test_sets_that_no_architecture_is_of_are_refused(
    command: str, modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    choice = ("--output", str(tmp_path), "--quick", command, "--subjects", "lenet5", "--sets", "kepe")
    result = CliRunner().invoke(modules["importance"].main, choice)
    assert result.exit_code == 2
    said = " ".join(result.stderr.split())
    assert (
        "Invalid value for --sets: expected the beginning of a set of architectures, got 'kepe'; try" in said
    )
    assert "the reference's 4" in said
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.slow
def test_torch_pruning_comes_down_to_the_same_costs(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    main = modules["importance"].main
    for side in ("dirprune, magnitude", "Torch-Pruning, magnitude, global"):
        choice = ("torch-pruning", "--sides", side, "--train-images", "128", "--seeds", "1")
        text = run(main, tmp_path, *choice)
    rows = [
        json.loads(line)["values"] for line in (tmp_path / "torch-pruning.jsonl").read_text().splitlines()
    ]
    assert [0.68 < row["macs"] <= 0.7 for row in rows] == [True, True]
    assert rows[0]["architecture"] == "11-11-11-22-22-22-45-45-45"
    assert [len(row["fine_tuned"]) for row in rows] == [1, 1]
    assert len([line for line in text.splitlines() if line.startswith("70%")]) == 2


def test_the_architectures_are_the_committed_ones(modules: dict[str, ModuleType]) -> None:
    grouping = Grouping(
        tuple(ChannelGroup(name, n, (), ()) for name, n in zip("abcd", (10, 20, 100, 25), strict=True))
    )
    draw = modules["importance_common"].draw_architectures
    drawn = draw(grouping, 24, 0.1, 0.9)
    assert [str(architecture) for architecture in drawn[:3]] == ["2-6-68-4", "1-10-71-3", "7-3-75-6"]
    assert draw(grouping, 3, 0.1, 0.9) == drawn[:3]
    ratios = np.array([list(architecture.values()) for architecture in drawn]) / [10, 20, 100, 25]
    assert 0.1 <= ratios.min() < 0.2
    assert 0.8 < ratios.max() <= 0.9


def test_exact_values_and_permutations_are_the_shapley_values_of_a_game_worked_out_by_hand(
    modules: dict[str, ModuleType],
) -> None:
    class Gloves(CoalitionValues):
        """One left glove and two right ones: a pair is worth 1. Values 2/3, 1/6, 1/6."""

        group, n_channels = "gloves", 3

        def _compute(self, coalitions):
            return (coalitions[:, 0] & (coalitions[:, 1] | coalitions[:, 2])).astype(float)

    estimates = modules["importance_estimates"]
    expected = np.array([2 / 3, 1 / 6, 1 / 6])
    np.testing.assert_allclose(estimates.compute_exact(Gloves()), expected)
    found, errors = estimates.run_permutations(Gloves(), 4000)
    assert (np.abs(found - expected) < 4 * errors).all()
    assert (errors < 0.02).all()
    assert found.sum() == pytest.approx(1)


def test_comparison_with_the_truth_on_small_numbers(modules: dict[str, ModuleType]) -> None:
    compare = modules["importance_estimates"].compare
    truth = np.array([4.0, 3.0, 2.0, 1.0])
    assert compare(truth, truth) == {"rmse": 0.0, "spearman": pytest.approx(1.0), "overlap": 1.0}
    assert compare(np.array([4.0, 1.0, 2.0, 3.0]), truth) == {
        "rmse": pytest.approx(2**0.5),
        "spearman": pytest.approx(0.2),
        "overlap": 0.5,
    }
    # Ranks 4, 2, 2, 2 against 4, 3, 2, 1: of equal values none is before another.
    assert compare(np.array([4.0, 1.0, 1.0, 1.0]), truth)["spearman"] == pytest.approx(0.6**0.5)


def test_channels_that_cancel_each_other_go_together_by_the_full_curvature(
    modules: dict[str, ModuleType],
) -> None:
    # Alone, channel 1 costs most to remove; together with channel 0 it costs less than channel 2.
    curvature = torch.tensor([[4.0, -4.5, 0.0], [-4.5, 6.0, 0.0], [0.0, 0.0, 5.0]])
    eliminate = modules["importance_methods"].eliminate
    assert eliminate(curvature, 1) == [2]
    assert eliminate(curvature.diagonal().diag(), 1) == [1]


@pytest.mark.slow
def test_annealing_is_a_fit_of_its_own(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    import importance_annealed

    labels = [variant.label for variant in importance_annealed.ANNEALED]
    choice = ("after-pruning", "--subjects", "lenet5", "--repairs", "recalibrated", "--sets", "the reference")
    run(modules["importance"].main, tmp_path, *choice, "--methods", ";".join(labels))
    rows = [json.loads(line) for line in (tmp_path / "after-pruning.jsonl").read_text().splitlines()]
    assert [row["key"]["variant"] for row in rows] == labels
    assert all(row["key"]["repairs"] == ["recalibrated"] for row in rows)
    assert all("reconstructed" not in row["values"] for row in rows)

    posterior, other = (DirichletPosterior({"a": 2, "b": 3}, 3.0) for _ in range(2))
    for each in (posterior, other):
        each.logits.data += torch.arange(5)
    importance_annealed.anneal_(posterior, 2)
    whole = float(other.kl().detach())
    assert whole > 0
    found = [float(posterior.kl().detach()) for _ in range(4)]
    assert found == pytest.approx([0, whole / 2, whole, whole])


def test_coverage_is_the_share_of_intervals_that_hold_the_truth(modules: dict[str, ModuleType]) -> None:
    measure = modules["importance_estimates"].measure_coverage
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert measure(Estimate(values, np.full(4, 0.5), 9), np.array([1.4, 2.6, 3.0, 9.0])) == 0.5
    assert measure(Estimate(values, None, 9), values) is None

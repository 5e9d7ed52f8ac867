"""`dirprune covariances`: its table, its files, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirprune.files import read_json
from dirprune.importance.simplex import laplace
from dirprune.importance.simplex.covariances import LEAST_CORRELATION
from dirprune.importance.simplex.scorers import SimplexSwitches
from tests.cli.conftest import Run
from tests.cli.test_cli_bad_input import check_one_line, list_files

GROUPS = ["conv1", "conv2", "linear1", "linear2"]
QUICK = ("--method-options", "steps=3", "--train-images", "200")


def test_pairs_are_printed_and_written_with_a_picture_per_group(run: Run, weights: Path) -> None:
    family = ("--method", "logistic-normal", "--seeds", "4,5")
    result = run("covariances", "--weights", weights, *QUICK, *family, "--output", "pairs")
    assert result.status == 0, result.errors
    assert "logistic-normal, one posterior for each seed 4, 5: pairs of channels" in result.output
    assert "excess agrees in" in result.output
    assert "conv2: 190 pairs; positive by seed:" in result.output
    assert [path.name for path in sorted(Path("pairs").iterdir())] == [
        *(f"covariances-{name}.png" for name in GROUPS),
        "covariances.json",
    ]
    stored = read_json(Path("pairs/covariances.json"), 3)
    assert stored["method"]["name"] == "logistic-normal"
    assert stored["method"]["options"]["steps"] == 3
    assert stored["seeds"] == [4, 5]
    conv1 = stored["groups"]["conv1"]
    assert len(conv1["means"]) == 2
    assert [len(row) for row in conv1["covariance"]] == [10] * 10
    assert all(abs(sum(row)) < 1e-12 for row in conv1["covariance"])
    assert len(conv1["agreement"]["n_positive"]) == 2
    assert all(abs(sum(row)) < 1e-12 for row in conv1["excess_covariance"])
    assert "excess" not in conv1  # that of pairs is over both standard deviations
    assert conv1["positive_excess"][0]["excess"] >= conv1["positive_excess"][1]["excess"] > 0


def test_the_file_says_which_images_it_comes_from_as_that_of_scores_does(run: Run, weights: Path) -> None:
    few = ("--weights", weights, "--train-images", "200", "--output")
    assert run("covariances", *few, "pairs", "--seeds", "0,1", "--null-draws", "0").status == 0
    assert run("rank", *few, "scores.json", "--method", "magnitude").status == 0
    data = read_json(Path("pairs/covariances.json"), 3)["data"]
    assert data == read_json(Path("scores.json"), 1)["data"]
    assert (data["name"], data["train_images"], data["seed"]) == ("digits", 200, 3)
    assert data["fingerprint"]


def test_help_explains_the_columns_and_the_file(run: Run) -> None:
    said = " ".join(run("covariances", "--help").output.split())
    assert f'"positive (> {LEAST_CORRELATION})" counts the seeds or image parts in which' in said
    assert 'Its matrices "covariance" and "excess_covariance"' in said


@pytest.mark.slow
def test_laplace_takes_a_part_of_the_images_for_each_seed(run: Run, weights: Path) -> None:
    few = ("--train-images", "200", "--seeds", "0,1")
    result = run("covariances", "--weights", weights, *few, "--output", "pairs")
    assert result.status == 0, result.errors
    assert "laplace, one posterior for each image part 0, 1: pairs of channels" in result.output
    means = read_json(Path("pairs/covariances.json"), 3)["groups"]["conv1"]["means"]
    assert means == [[0.1] * 10] * 2
    conv2 = read_json(Path("pairs/covariances.json"), 3)["groups"]["conv2"]
    assert [len(values) for values in conv2["agreement"]["null"].values()] == [19, 19]
    assert "(without interactions " in result.output


@pytest.mark.slow
def test_fitted_families_have_as_many_draws_of_the_null_as_are_asked_for(run: Run, weights: Path) -> None:
    family = ("--method", "generalized-dirichlet", "--seeds", "0,1")
    command = ("covariances", "--weights", weights, *QUICK, *family, "--output", "pairs")
    result = run(*command)
    assert result.status == 0, result.errors
    assert "without interactions not drawn, so it proves none" in result.output
    assert read_json(Path("pairs/covariances.json"), 3)["groups"]["conv1"]["agreement"]["null"] is None
    result = run(*command, "--null-draws", "1")
    assert result.status == 0, result.errors
    null = read_json(Path("pairs/covariances.json"), 3)["groups"]["conv1"]["agreement"]["null"]
    assert [len(values) for values in null.values()] == [1, 1]


def test_dirichlet_has_no_pair_to_show(run: Run, weights: Path) -> None:
    dirichlet = ("--method", "dirichlet", "--seeds", "0")
    result = run("covariances", "--weights", weights, *QUICK, *dirichlet, "--output", "pairs")
    assert result.status == 0, result.errors
    assert "no pair differs from the Dirichlet with the same means" in result.output


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--method", "dirichlet", "--method-options", "estimator=point"], ["'point'", "estimator=integral"]),
        (
            ["--method", "magnitude"],
            ["posterior on the simplex", "known: dirichlet, gen"],
        ),
        (["--method", "logistic"], ["got 'logistic'", "did you mean 'logistic-normal'?"]),
        (["--method-options", "rank=1", "--method-options", "rank=2"], ["each method option once"]),
        (["--method-options", "rank=1"], ["laplace has no options, got rank"]),
        (
            ["--method", "logistic-normal", "--method-options", "ranks=1"],
            ["unknown option 'ranks'", "did you mean 'rank'?"],
        ),
        (["--seeds", "0,0"], ["--seeds", "different whole numbers such as 0,1,2", "'0,0'"]),
        (["--seeds", "0,-1"], ["--seeds", "'0,-1'"]),
        (["--seeds", ""], ["--seeds", "got ''"]),
        (["--null-draws", "-1"], ["--null-draws", "whole number of at least 0", "'-1'"]),
        ([], ["weights file", "w.safetensors"]),
    ],
)
def test_mistakes_end_in_one_line(run: Run, arguments: list[str], fragments: list[str]) -> None:
    result = run("covariances", "--weights", "w.safetensors", "--output", "pairs", *arguments)
    check_one_line(result, *fragments)
    assert list_files() == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dirichlet", pytest.param("laplace", marks=pytest.mark.slow)])
def test_what_ended_before_ctrl_c_is_kept_and_the_same_command_goes_on(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    place, name = (laplace, "compute_curvatures") if method == "laplace" else (SimplexSwitches, "fit")
    what = "image part" if method == "laplace" else "seed"
    compute, n_calls, n_allowed = getattr(place, name), 0, 0

    def compute_some(*arguments: object) -> object:
        nonlocal n_calls
        n_calls += 1
        if n_calls > n_allowed:
            raise KeyboardInterrupt
        return compute(*arguments)

    monkeypatch.setattr(place, name, compute_some)
    quick = QUICK if method == "dirichlet" else QUICK[2:]
    command = ("covariances", "--weights", weights, *quick, "--method", method, "--output", "pairs")
    result = run(*command)
    assert (result.status, result.errors) == (
        130,
        f"nothing is kept: the covariances of {what} 0 are not whole; the same command begins anew\n"
        "interrupted\n",
    )
    n_calls, n_allowed = 0, 2
    result = run(*command)
    assert (result.status, result.errors) == (
        130,
        f"kept in output/scores: the covariances of {what} 0, 1; the same command goes on from there\n"
        "interrupted\n",
    )
    n_calls, n_allowed = 0, 1
    result = run(*command)
    assert (result.status, n_calls) == (0, 1), result.errors
    told = Path("pairs/covariances.json").read_bytes()
    n_allowed = 4
    assert run(*command, "--cache", "elsewhere").status == 0
    assert n_calls == 4
    assert Path("pairs/covariances.json").read_bytes() == told

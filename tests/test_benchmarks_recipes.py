"""The benchmark of recipes at its smallest: it runs, measures nothing twice, and prints what it measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torchvision.transforms.functional import to_pil_image

from dirprune.networks import create_network
from dirprune.networks.weights import save_weights

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch):
    """The script's command, imported as the command line does."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import recipes

    dense = recipes.SUBJECTS["lenet5"].dense
    monkeypatch.setitem(dense, "plain", (1, dense["plain"][1]))
    threads = torch.get_num_threads()
    yield recipes.main
    torch.set_num_threads(threads)
    for name in ("recipes", "importance_common"):
        del sys.modules[name]


@pytest.mark.slow
def test_trainings_are_measured_once_and_reported(main, mnist_root: Path, tmp_path: Path) -> None:
    arguments = ["run", "--data", str(mnist_root), "--output", str(tmp_path), "--train-images", "400"]
    arguments += ["--architectures", "6,7,34,16", "--epochs", "0.5", "--seeds", "0,1", "--recipes"]
    path = tmp_path / "recipes.jsonl"
    for names, n_rows in (("plain", 3), ("plain;shift 1, plain dense", 5), ("plain", 5)):
        result = CliRunner().invoke(main, [*arguments, names], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == n_rows
    assert [row["key"]["recipe"] for row in rows] == [
        "dense: plain",
        *["plain"] * 2,
        *["shift 1, plain dense"] * 2,
    ]
    assert rows[1]["values"]["test_error"] != rows[3]["values"]["test_error"]

    printed = CliRunner().invoke(main, ["report", "--output", str(tmp_path)], catch_exceptions=False).output
    lines = [line for line in printed.splitlines() if line.startswith("6,7,34,16 (158,112)")]
    assert len(lines) == 2
    assert all("±" in line for line in lines)


def write_photographs(folder: Path, held_out: str, size: int) -> None:
    """Write class folders of noise: 120 images to train with and 40 held out, of ten classes."""
    generator = torch.Generator().manual_seed(0)
    for split, n_images in (("train", 120), (held_out, 40)):
        for index in range(n_images):
            place = folder / split / str(index % 10)
            place.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)
            to_pil_image(pixels).save(place / f"{index}.png")


@pytest.mark.slow
def test_resnet20_is_fine_tuned_from_given_weights(main, tmp_path: Path) -> None:
    write_photographs(tmp_path / "images", "test", 32)
    network = create_network("resnet20", seed=0)
    save_weights(network, tmp_path / "resnet20.safetensors", {})
    arguments = [
        "run",
        "--subject",
        "resnet20",
        "--data",
        str(tmp_path / "images"),
        "--output",
        str(tmp_path),
    ]
    arguments += ["--architectures", "0.5", "--epochs", "1", "--seeds", "0"]
    arguments += ["--recipes", "as the studies;not distilled"]
    refused = CliRunner().invoke(main, arguments)
    assert refused.exit_code == 2
    assert "--weights" in refused.output

    arguments += ["--weights", str(tmp_path / "resnet20.safetensors")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "recipes.jsonl").read_text().splitlines()]
    assert [row["values"]["macs"] for row in rows] == [40_551_040, 20_497_024, 20_497_024]
    assert rows[1]["values"]["train_loss"] != rows[2]["values"]["train_loss"]


@pytest.mark.slow
def test_dense_recipes_are_compared_and_one_of_their_networks_is_fine_tuned(main, tmp_path: Path) -> None:
    write_photographs(tmp_path / "images", "val", 64)
    arguments = ["run", "--subject", "resnet18", "--data", str(tmp_path / "images")]
    arguments += ["--output", str(tmp_path), "--train-images", "20", "--epochs", "1", "--seeds"]
    refused = CliRunner().invoke(main, [*arguments, "0", "--dense", "rate 0.2"])
    assert refused.exit_code == 2
    assert "unknown recipe 'rate 0.2'" in refused.output

    both = "rate 0.1;rate 0.03, warmed up"
    path = tmp_path / "recipes.jsonl"
    runs = [("0,1", "--dense", both, 4), ("0,1", "--dense", both, 4), ("0", "--recipes", "as the studies", 5)]
    for seeds, option, names, n_rows in runs:
        result = CliRunner().invoke(main, [*arguments, seeds, option, names], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == n_rows
    assert len({row["values"]["val_loss"] for row in rows}) == 5
    assert [(row["key"]["recipe"], row["key"]["seed"]) for row in rows] == [
        *[("dense: rate 0.1", 0), ("dense: rate 0.03, warmed up", 0)],
        *[("dense: rate 0.1", 1), ("dense: rate 0.03, warmed up", 1)],
        ("as the studies", 0),
    ]
    assert rows[4]["values"]["macs"] < 0.5 * rows[0]["values"]["macs"]

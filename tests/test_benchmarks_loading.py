"""The benchmark of loading at its smallest: both sides give batches of the same kind, and rows come out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.data.photograph_folders import write_folders

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders; the scripts can be imported."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    write_folders(tmp_path / "set")
    for path in (tmp_path / "set").rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))
    return tmp_path / "set"


def test_both_sides_give_whole_passes_of_normalised_batches(photographs: Path, tmp_path: Path) -> None:
    import loading

    found = list(loading.cases(None, photographs, tmp_path / "shards", [0], 0.01))
    assert [name for name, *_ in found] == [
        "photographs from folders, 0 workers",
        "photographs from shards, 0 workers",
    ]
    for _, *both in found:
        for run in both:
            batch = torch.cat(list(run()))
            assert batch.shape[1:] == (3, 112, 112)
            assert batch.dtype == torch.float32
            assert 20 <= len(batch) <= 36
            assert -3 < batch.mean() < 3


def test_rows_are_printed(photographs: Path) -> None:
    import loading

    arguments = ["--photographs", str(photographs), "--workers", "0", "--repetitions", "1", "--share", "0.01"]
    result = CliRunner().invoke(loading.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "photographs from shards, 0 workers" in result.stdout
    assert "ratio by CPU time" in result.stdout

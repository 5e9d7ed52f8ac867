"""Coalition values on disk: nothing is computed twice, nothing broken is used, also across processes."""

from __future__ import annotations

import dataclasses
import errno
import json
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dirprune.errors import ImportanceError
from dirprune.importance import ScoreCache, ScoringContext, create, find_scores
from dirprune.importance.coalitions import Coalitions, CoalitionValues, open_values
from dirprune.importance.coalitions.store import StoredValues
from dirprune.importance.lines import SCHEMA, _with_checksum
from tests.importance.cases import make_context

ROOT = Path(__file__).parents[3]
N_CHANNELS = 10


class Binary(CoalitionValues):
    """A coalition is worth the number that its bits write, first channel last; counts what is computed."""

    group, n_channels = "conv", N_CHANNELS

    def __init__(self) -> None:
        self.n_computed = 0

    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        self.n_computed += len(coalitions)
        return coalitions @ 2.0 ** np.arange(N_CHANNELS)


def open_store(folder: Path, progress: Any = None) -> StoredValues:
    return StoredValues(Binary(), folder / "values.jsonl", progress)


def write_out(numbers: range) -> Coalitions:
    """Return the coalitions that are worth the given numbers."""
    return np.array([[number >> bit & 1 for bit in range(N_CHANNELS)] for number in numbers], dtype=bool)


def check(store: StoredValues, numbers: range, n_computed: int) -> None:
    """Check that values are right, and how many of them this store has computed in all."""
    assert store.evaluate(write_out(numbers)).tolist() == list(numbers)
    assert store.n_computed == n_computed
    assert isinstance(store.values, Binary)
    assert store.values.n_computed == n_computed


def test_more_evaluations_compute_only_the_missing_ones_also_later(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    check(first, range(30), 30)
    check(first, range(30), 30)
    check(first, range(100), 100)
    check(open_store(tmp_path), range(120), 20)


def test_coalitions_that_are_asked_for_twice_are_computed_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    coalitions = write_out(range(5))[[3, 3, 0, 4, 3, 0]]
    assert store.evaluate(coalitions).tolist() == [3, 3, 0, 4, 3, 0]
    assert store.n_computed == 3


@pytest.mark.parametrize("n_lost", [1, 2, 30, 90])
def test_line_that_was_cut_short_is_computed_again(tmp_path: Path, n_lost: int) -> None:
    first = open_store(tmp_path)
    check(first, range(20), 20)
    check(first, range(28), 28)
    content = first.lines.path.read_bytes()
    assert len(content.splitlines()[-1]) > 90
    first.lines.path.write_bytes(content[:-n_lost])
    check(open_store(tmp_path), range(28), 8)
    check(open_store(tmp_path), range(28), 0)


def test_line_that_was_changed_is_computed_again(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    check(first, range(8), 8)
    check(first, range(16), 16)
    lines = first.lines.path.read_bytes().splitlines(keepends=True)
    assert b" 9.0," in lines[1]
    first.lines.path.write_bytes(lines[0] + lines[1].replace(b" 9.0,", b" 5.0,"))
    check(open_store(tmp_path), range(16), 8)


@pytest.mark.parametrize(
    "rubbish", [b"\n", b"\xff\x00\n", b"[]\n", b"null\n", b'"text"\n', b'{"schema": 1}\n']
)
def test_lines_of_something_else_are_passed_over(tmp_path: Path, rubbish: bytes) -> None:
    first = open_store(tmp_path)
    check(first, range(8), 8)
    first.lines.path.write_bytes(rubbish + first.lines.path.read_bytes() + rubbish)
    check(open_store(tmp_path), range(9), 1)


def test_lines_of_another_schema_or_width_are_passed_over(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    check(first, range(8), 8)
    (line,) = first.lines.path.read_bytes().splitlines()
    record = {key: value for key, value in json.loads(line).items() if key != "sha256"}
    assert _with_checksum(record) == line + b"\n"
    first.lines.path.write_bytes(_with_checksum({**record, "schema": SCHEMA + 1}))
    check(open_store(tmp_path), range(8), 8)
    first.lines.path.write_bytes(_with_checksum({**record, "values": record["values"][1:]}))
    check(open_store(tmp_path), range(8), 8)


def test_values_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    class Broken(Binary):
        def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
            return np.full(len(coalitions), np.nan)

    with pytest.raises(ImportanceError, match="must be finite"):
        StoredValues(Broken(), tmp_path / "values.jsonl").evaluate(write_out(range(3)))
    check(open_store(tmp_path), range(3), 3)


def test_progress_begins_with_what_is_known_and_ends_with_all(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    check(open_store(tmp_path), range(30), 30)
    open_store(tmp_path, lambda *state: told.append(state)).evaluate(write_out(range(100)))
    assert told[0] == (30, 100)
    assert told[-1] == (100, 100)
    assert told == sorted(told)


def test_folder_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    context = dataclasses.replace(make_context(), workspace=tmp_path / "file")
    with pytest.raises(ImportanceError, match=r"must be kept in a folder that can be written, got .*file"):
        open_values(context, "conv1")

    whole_open = Path.open

    def on_a_full_disk(path: Path, mode: str = "r", *rest: Any) -> Any:
        if mode == "ab":
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole_open(path, mode, *rest)

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with pytest.raises(ImportanceError, match=r"got .*\(No space left on device\); choose another folder"):
        open_store(tmp_path).evaluate(write_out(range(3)))


WORKER = """
import sys, time
from pathlib import Path
from tests.importance.coalitions.test_store import Binary, StoredValues, check, write_out

class Slow(Binary):
    def _compute(self, coalitions):
        time.sleep(float(sys.argv[2]))
        return super()._compute(coalitions)

store = StoredValues(Slow(), Path(sys.argv[1]) / "values.jsonl")
assert store.evaluate(write_out(range(40))).tolist() == list(range(40))
print(store.n_computed)
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    """Start a process that computes forty values, each batch taking so many seconds."""
    command = [sys.executable, "-c", WORKER, str(folder), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for_lines(path: Path, n_lines: int) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < n_lines:
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_at_once_share_the_work(tmp_path: Path) -> None:
    workers = [start(tmp_path, 0.3) for _ in range(2)]
    computed = [int(worker.communicate(timeout=200)[0]) for worker in workers]
    assert sum(computed) == 40
    check(open_store(tmp_path), range(40), 0)


@pytest.mark.slow
def test_what_a_killed_process_had_computed_is_kept(tmp_path: Path) -> None:
    worker = start(tmp_path, 2.0)
    try:
        wait_for_lines(tmp_path / "values.jsonl", 2)
    finally:
        worker.kill()
        worker.communicate()
    store = open_store(tmp_path)
    store.evaluate(write_out(range(40)))
    assert 0 < store.n_computed < 40


class Timed(Binary):
    """Passes the seconds of a clock of its own: for preparing each go, and for each coalition."""

    def __init__(
        self, preparing_s: float, each_s: float, monkeypatch: pytest.MonkeyPatch, n_in_go: int = 2000
    ) -> None:
        super().__init__()
        self.preparing_s, self.each_s, self.n_in_go, self.now = preparing_s, each_s, n_in_go, 0.0
        self.is_held = False
        self.seconds: list[float] = []
        self.sizes: list[int] = []
        clock = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr("dirprune.importance.coalitions.store.time", clock)

    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        self.shared_s = 0.0 if self.is_held and self.sizes else self.preparing_s
        self.repeated_s = 0.0 if self.is_held else self.preparing_s
        n_goes = -(-len(coalitions) // self.n_in_go)
        self.seconds.append(self.shared_s * n_goes + self.each_s * len(coalitions))
        self.sizes.append(len(coalitions))
        self.now += self.seconds[-1]
        return super()._compute(coalitions)


@pytest.mark.parametrize("preparing_s", [0.0, 0.5, 3.0, 40.0])
@pytest.mark.parametrize("each_s", [1e-5, 0.01, 1.0])
def test_batches_cost_little_to_start_and_little_to_lose(
    preparing_s: float, each_s: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = Timed(preparing_s, each_s, monkeypatch)
    StoredValues(values, tmp_path / "values.jsonl").evaluate(write_out(range(1000)))
    assert values.now <= 2.3 * 1000 * each_s + 4 * preparing_s
    assert all(size * each_s <= max(2.5, preparing_s * 1.1) for size in values.sizes[1:])
    assert len(values.sizes) <= 5 + 1000 * each_s / max(2, preparing_s) * 1.3


def test_what_is_prepared_once_makes_no_batch_longer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = Timed(60.0, 0.4, monkeypatch)
    values.is_held = True
    StoredValues(values, tmp_path / "values.jsonl").evaluate(write_out(range(100)))
    assert max(values.seconds[1:]) <= 2.5


def test_batches_grow_no_further_where_they_are_gone_through_in_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = Timed(30.0, 0.01, monkeypatch, n_in_go=80)
    StoredValues(values, tmp_path / "values.jsonl").evaluate(write_out(range(1000)))
    assert max(values.sizes) <= 160
    assert values.now <= 1.6 * (30.0 * 1000 / 80 + 0.01 * 1000)  # what one go after the other takes


def test_small_calls_do_not_make_later_batches_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values = Timed(1.0, 1e-4, monkeypatch)
    store = StoredValues(values, tmp_path / "values.jsonl")
    for numbers in (range(300), range(302), range(1000)):
        store.evaluate(write_out(numbers))
    assert values.sizes == [8, 128, 164, 2, 698]


def change_weight(context: ScoringContext) -> ScoringContext:
    context.network.conv1.weight.data[0] *= 1.5  # type: ignore[operator,index]
    return context


def test_values_of_other_weights_are_never_found(tmp_path: Path) -> None:
    scorer, cache = create("leave-one-out"), ScoreCache(tmp_path)
    find_scores(scorer, make_context(), cache=cache)
    changed = change_weight(make_context())
    expected, _ = find_scores(scorer, changed)
    found, was_cached = find_scores(scorer, changed, cache=cache)
    assert not was_cached
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(found["conv1"], find_scores(scorer, make_context())[0]["conv1"])


def test_file_is_another_one_for_all_that_values_depend_on(tmp_path: Path) -> None:
    context = dataclasses.replace(make_context(), workspace=tmp_path)
    opened = [
        open_values(context, "conv1"),
        open_values(context, "conv1", value="accuracy"),
        open_values(context, "conv2"),
        open_values(context, "conv1", {"conv2": [0, 1]}),
        open_values(context, "conv1", {"conv2": [0, 2]}),
        open_values(dataclasses.replace(change_weight(make_context()), workspace=tmp_path), "conv1"),
    ]
    paths = {values.lines.path for values in opened if isinstance(values, StoredValues)}
    assert len(paths) == len(opened)
    same = [
        open_values(dataclasses.replace(context, seed=5), "conv1"),
        open_values(context, "conv1", {"conv2": [1, 0]}),
        open_values(context, "conv1", {"conv1": [1]}),
    ]
    assert {values.lines.path for values in same if isinstance(values, StoredValues)} <= paths
    assert not isinstance(open_values(context, "conv1", is_stored=False), StoredValues)

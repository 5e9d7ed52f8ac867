"""The score cache: keyed by content, whole files only, one computation at a time, in real processes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dirprune.errors import ImportanceError
from dirprune.identity import identify
from dirprune.importance import ScoreCache, Scorer, ScoringContext, create, find_scores, select_channels
from dirprune.importance.cache import context_key, score_key
from dirprune.tasks import make_task
from tests.importance.cases import linear_case, make_context
from tests.importance.test_calling import FirstOnes
from tests.networks_for_tests import Residual

ROOT = Path(__file__).parents[2]
WORKER = """
import sys, time
from pathlib import Path
import torch
from dirprune.importance import ScoreCache

folder, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def compute():
    (folder / f"computing-{name}").touch()
    time.sleep(seconds)
    return {"a": torch.arange(3, dtype=torch.float64)}

scores, was_cached = ScoreCache(folder).get_or_compute("key", compute)
assert scores["a"].tolist() == [0, 1, 2]
print(was_cached)
"""


def start(folder: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), name, str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for(is_there: Callable[[], bool], limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not is_there():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


def fail() -> dict[str, Tensor]:
    raise AssertionError("computed again")


def ones() -> dict[str, Tensor]:
    return {"conv.1": torch.ones(3, dtype=torch.float64)}


def test_scores_are_computed_once_and_found_by_another_instance(tmp_path: Path) -> None:
    scores, was_cached = ScoreCache(tmp_path / "new" / "folder").get_or_compute("k", ones)
    assert not was_cached
    found, was_cached = ScoreCache(tmp_path / "new" / "folder").get_or_compute("k", fail)
    assert was_cached
    assert torch.equal(found["conv.1"], scores["conv.1"])
    assert found["conv.1"].dtype == torch.float64


def test_failed_computation_stores_nothing(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    with pytest.raises(AssertionError, match="computed again"):
        cache.get_or_compute("k", fail)
    assert not list(tmp_path.glob("*.safetensors"))
    assert cache.get_or_compute("k", ones)[1] is False


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_file_cut_short_is_computed_again(tmp_path: Path, keep: float) -> None:
    cache = ScoreCache(tmp_path)
    cache.get_or_compute("k", ones)
    content = cache.path("k").read_bytes()
    cache.path("k").write_bytes(content[: int(keep * len(content))])
    assert cache.get_or_compute("k", ones)[1] is False
    assert cache.get_or_compute("k", fail)[1] is True


def test_file_of_another_key_is_computed_again(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    cache.get_or_compute("other", ones)
    cache.path("other").rename(cache.path("k"))
    assert cache.get_or_compute("k", ones)[1] is False


def test_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ImportanceError, match=r"score cache must be a folder that can be written, got .*file"
    ):
        ScoreCache(tmp_path / "file")


def test_two_processes_at_once_compute_once(tmp_path: Path) -> None:
    workers = [start(tmp_path, name, 1.0) for name in ("first", "second")]
    answers = sorted(worker.communicate(timeout=200)[0].strip() for worker in workers)
    assert answers == ["False", "True"]
    assert len(list(tmp_path.glob("computing-*"))) == 1


def test_killed_owner_gives_up_its_lease(tmp_path: Path) -> None:
    owner = start(tmp_path, "owner", 600)
    try:
        wait_for((tmp_path / "computing-owner").exists)
        waiting = start(tmp_path, "waiting", 0)
        time.sleep(1)
        assert waiting.poll() is None
        assert not (tmp_path / "computing-waiting").exists()
    finally:
        owner.kill()
        owner.communicate()
    assert waiting.communicate(timeout=200)[0].strip() == "False"
    assert (tmp_path / "computing-waiting").exists()
    assert ScoreCache(tmp_path).get_or_compute("key", fail)[1] is True


def change_weight(context: ScoringContext) -> ScoringContext:
    context.network[0].weight.data[0, 0] += 1e-3  # type: ignore[index]
    return context


def change_target(context: ScoringContext) -> ScoringContext:
    targets = context.calibration.targets.clone()
    targets[0] += 1
    return dataclasses.replace(context, calibration=dataclasses.replace(context.calibration, targets=targets))


def change_indices(context: ScoringContext) -> ScoringContext:
    indices = context.calibration.indices + 1
    return dataclasses.replace(context, calibration=dataclasses.replace(context.calibration, indices=indices))


@pytest.mark.parametrize(
    "change",
    [
        change_weight,
        change_target,
        change_indices,
        lambda context: dataclasses.replace(context, seed=1),
        lambda context: dataclasses.replace(context, normalise=lambda inputs: inputs / 2),
        lambda context: dataclasses.replace(context, task=make_task("cross_entropy")),
        lambda context: dataclasses.replace(
            context, calibration=context.calibration.subset(torch.arange(len(context.calibration) - 1))
        ),
    ],
)
def test_key_changes_with_what_scores_depend_on(change: Callable[[ScoringContext], ScoringContext]) -> None:
    method = create("magnitude")
    key = score_key(method, linear_case([1, 2]))
    assert key == score_key(create("magnitude", {"norm": "l1"}), linear_case([1, 2]))
    assert key != score_key(method, change(linear_case([1, 2])))


def test_key_changes_with_method_options_and_architecture() -> None:
    context = linear_case([1, 2])
    methods = [create("magnitude"), create("magnitude", {"norm": "l2"}), create("taylor"), create("fisher")]
    keys = {score_key(method, context) for method in methods} | {score_key(methods[0], context, {"0": 1})}
    assert len(keys) == 5


class Counting(Scorer):
    """Counts how often it scores."""

    count = 0

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        type(self).count += 1
        return {"0": torch.tensor([1.0, 3.0, 2.0])}


def test_scores_of_one_method_serve_every_architecture(tmp_path: Path) -> None:
    context, cache = linear_case([1, 1, 1]), ScoreCache(tmp_path)
    first = select_channels(Counting(), context, {"0": 2}, cache)
    second = select_channels(Counting(), context, {"0": 1}, cache)
    assert (first.kept, first.was_cached) == ({"0": [1, 2]}, False)
    assert (second.kept, second.was_cached) == ({"0": [1]}, True)
    assert Counting.count == 1
    assert first.wall_time_s > 0


def test_choice_of_a_selector_is_kept_for_its_architecture_only(tmp_path: Path) -> None:
    context, cache = linear_case([1, 1, 1]), ScoreCache(tmp_path)
    for was_cached in (False, True):
        selection = select_channels(FirstOnes(), context, {"0": 2}, cache)
        assert (selection.kept, selection.was_cached) == ({"0": [0, 1]}, was_cached)
        assert selection.scores["0"].tolist() == [1, 1, 0]
    assert not select_channels(FirstOnes(), context, {"0": 1}, cache).was_cached


def test_cached_scores_are_those_computed(tmp_path: Path) -> None:
    context, cache = linear_case([1, 2, 3]), ScoreCache(tmp_path)
    direct, _ = find_scores(create("dirichlet", {"steps": 3}), context)
    for was_cached in (False, True):
        scores, found = find_scores(create("dirichlet", {"steps": 3}), context, cache=cache)
        assert found is was_cached
        assert torch.equal(scores["0"], direct["0"])


def test_a_key_reads_the_source_of_each_class_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def read_and_note(target: object) -> dict[str, object]:
        read.append(target)
        return identify(target)  # type: ignore[arg-type]

    context = make_context(Residual)
    monkeypatch.setattr("dirprune.importance.cache.identify", read_and_note)
    context_key(context)
    classes = {type(module) for module in context.network.modules()}
    assert len(classes) < len(list(context.network.modules()))
    assert sorted(map(repr, classes)) == sorted(repr(target) for target in read if isinstance(target, type))

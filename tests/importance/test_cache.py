"""The score cache: keyed by content, whole files only, one computation at a time, in real processes."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dirprune.errors import ImportanceError
from dirprune.identity import identify
from dirprune.importance import ScoreCache, Scorer, ScoringContext, create, find_scores, select_channels
from dirprune.importance.answers import describe_answers
from dirprune.importance.cache import context_key, score_key
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from tests.full_disk import no_room
from tests.importance.cases import identity, linear_case, make_context, make_split
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


def test_a_disk_that_is_full_is_an_error_of_the_system_and_leaves_no_file(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    with no_room(), pytest.raises(OSError, match="File too large"):
        cache.get_or_compute("k", ones)
    assert not list(tmp_path.glob("*.safetensors*"))
    assert not cache.get_or_compute("k", ones)[1]


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


@pytest.mark.slow
def test_two_processes_at_once_compute_once(tmp_path: Path) -> None:
    workers = [start(tmp_path, name, 1.0) for name in ("first", "second")]
    answers = sorted(worker.communicate(timeout=200)[0].strip() for worker in workers)
    assert answers == ["False", "True"]
    assert len(list(tmp_path.glob("computing-*"))) == 1


@pytest.mark.slow
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


@pytest.mark.parametrize("is_module", [False, True])
def test_key_changes_with_a_tensor_that_the_loss_has_bound(is_module: bool) -> None:
    def key(weight: float) -> str:
        weights = torch.tensor([1.0, weight])
        criterion = nn.CrossEntropyLoss(weight=weights, reduction="none")
        bound = functools.partial(F.cross_entropy, weight=weights, reduction="none")
        loss = (lambda outputs, targets: criterion(outputs, targets)) if is_module else bound
        return score_key(create("taylor"), dataclasses.replace(linear_case([1, 2]), task=make_task(loss)))

    assert key(2.0) == key(2.0)
    assert key(2.0) != key(3.0)


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


class Carrying(nn.Module):
    """Calls a function that it carries and one of this file, and scales by a tensor that is no buffer."""

    def __init__(self, function: Callable[[Tensor], Tensor] = torch.relu, scale: float = 1.0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.function, self.scale = function, torch.full((6,), scale)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(help_along(self.function(self.first(inputs)) * self.scale))


def help_along(values: Tensor) -> Tensor:
    return values


def carrying_case(make: Callable[[], nn.Module] = Carrying) -> ScoringContext:
    """Return the context of a network with weights and images that are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, inputs = make().eval(), torch.randn(20, 4)
        grouping = find_groups(Carrying().eval(), inputs[:2])
    return ScoringContext(network, grouping, make_split(inputs, torch.arange(20) % 3), identity, make_task())


def change_in(name: str, value: object) -> ScoringContext:
    """Return the context of a network with another attribute, which none of its classes tells."""
    context = carrying_case()
    setattr(context.network, name, value)
    return context


# On one line, so that their source is the same: only what they answer tells them apart.
RECTIFY, SATURATE = lambda values: torch.relu(values), lambda values: torch.tanh(values)


def test_key_changes_with_the_function_that_a_module_carries() -> None:
    assert context_key(change_in("function", RECTIFY)) == context_key(change_in("function", RECTIFY))
    assert context_key(change_in("function", RECTIFY)) != context_key(change_in("function", SATURATE))


def test_key_changes_with_what_a_carried_function_has_bound_though_no_image_shows_it() -> None:
    def clip(highest: float) -> Callable[[Tensor], Tensor]:
        return lambda values: values.clamp(0, highest)

    assert context_key(change_in("function", clip(1e6))) == context_key(change_in("function", clip(1e6)))
    assert context_key(change_in("function", clip(1e6))) != context_key(change_in("function", clip(2e6)))


def test_key_changes_with_a_tensor_that_is_no_buffer() -> None:
    assert context_key(change_in("scale", torch.full((6,), 1.0))) == context_key(carrying_case())
    # Of a change that is too small for its outputs to tell.
    assert context_key(change_in("scale", torch.full((6,), 1 + 1e-7))) != context_key(carrying_case())
    assert context_key(change_in("others", [torch.zeros(2)])) != context_key(
        change_in("others", [torch.ones(2)])
    )
    assert context_key(change_in("others", [nn.Parameter(torch.zeros(2))])) != context_key(
        change_in("others", [nn.Parameter(torch.ones(2))])
    )


def test_key_changes_with_a_helper_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    before = context_key(carrying_case())
    assert context_key(carrying_case()) == before
    monkeypatch.setattr(f"{__name__}.help_along", lambda values: 2 * values)
    assert context_key(carrying_case()) != before


class Single(Carrying):
    """Works in float32 alone."""

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.function(self.first(inputs).float()))


class Loose(Carrying):
    """Draws from a generator that nobody can set back."""

    rng = torch.Generator()

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) + torch.rand(3, generator=self.rng)


class Dropping(Carrying):
    """Drops at random, also in evaluation mode; its output is a mapping."""

    def forward(self, inputs: Tensor) -> dict[str, object]:  # type: ignore[override]
        dropped = nn.functional.dropout(super().forward(inputs), training=True)
        return {"outputs": [dropped], "name": "dropped"}


class Failing(Carrying):
    """Runs elsewhere only."""

    def forward(self, inputs: Tensor) -> Tensor:
        raise NotImplementedError("not on this device")


@pytest.mark.parametrize("kind", [Carrying, Single, Loose, Dropping, Failing])
def test_key_of_the_same_network_is_the_same_again(kind: type[nn.Module]) -> None:
    before = torch.get_rng_state()
    keys = {context_key(carrying_case(kind)) for _ in range(3)}
    assert len(keys) == 1
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [Single, Dropping])
def test_answers_of_networks_that_are_hard_to_ask_count_too(kind: Callable[..., nn.Module]) -> None:
    networks = [carrying_case(lambda: kind(function)).network for function in (RECTIFY, SATURATE)]  # noqa: B023
    answers = [describe_answers(network, torch.ones(2, 4)) for network in networks]
    assert None not in answers
    assert answers[0] != answers[1]


def test_answers_tell_a_factor_and_values_that_are_not_finite() -> None:
    class Constant(nn.Module):
        def __init__(self, values: list[float]) -> None:
            super().__init__()
            self.values = values

        def forward(self, inputs: Tensor) -> Tensor:
            return torch.tensor([self.values] * len(inputs))

    values = [[1.0, 2], [10, 20], [1, 2 + 1e-5], [1, torch.inf], [1, -torch.inf], [1, torch.nan], [0, 0]]
    answers = [str(describe_answers(Constant(each), torch.ones(2, 1))) for each in values]
    assert len(set(answers)) == len(values)
    assert answers[0] == str(describe_answers(Constant([1 - 1e-9, 2 + 1e-9]), torch.ones(2, 1)))


def test_answers_do_not_depend_on_threads_and_mode() -> None:
    context = make_context(Residual)
    inputs, n_threads = context.calibration.inputs, torch.get_num_threads()
    answers = []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            answers.append(describe_answers(context.network.train(n == 2), inputs))
    finally:
        torch.set_num_threads(n_threads)
    assert answers[0] == answers[1] == answers[2] is not None


def test_a_network_is_asked_once_for_each_context(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []

    def note(network: nn.Module, inputs: Tensor) -> object:
        asked.append(network)
        return describe_answers(network, inputs)

    monkeypatch.setattr("dirprune.importance.cache.describe_answers", note)
    context = carrying_case()
    key = context_key(context)
    assert context_key(dataclasses.replace(context, seed=5)) == key
    assert len(asked) == 1
    change = dataclasses.replace(context, calibration=context.calibration.subset(torch.arange(5)))
    assert context_key(change) != key
    assert len(asked) == 2

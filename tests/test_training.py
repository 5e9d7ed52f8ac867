from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dirprune.data.roles import DataRoles, make_roles
from dirprune.errors import ConfigurationError, StudyError, TrainingDiverged
from dirprune.tasks import Task, make_task
from dirprune.training import Recipe, TrainingReport, TrainingState, train_
from dirprune.training_run import TrainingRun

N_EPOCH = 90
CLASSES = make_task()
VALUES = make_task("mse", "mse")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def roles() -> DataRoles:
    """90 training images of 4 x 4 in three classes, each bright in its own row; the last pixel is unique."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(120) % 3
    images = torch.randint(0, 120, (120, 1, 4, 4), generator=generator)
    images[torch.arange(120), 0, targets] += 60
    images[:, 0, 3, 3] = torch.arange(120)
    images = images.to(torch.uint8)
    return make_roles(
        "rows",
        images[:100],
        targets[:100],
        images[100:],
        targets[100:],
        validation_from="train:0.1",
        n_classes=3,
        mean=(0.4,),
        std=(0.2,),
    )


def _network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 3)
        )


class _Watched(nn.Module):
    """Remembers the batches it was trained on, by their unique pixel."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.batches: list[list[int]] = []
        self.dtypes: set[torch.dtype] = set()

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.inner(images)
        if self.training:
            self.batches.append(((images[:, 0, 3, 3] * 0.2 + 0.4) * 255).round().int().tolist())
            self.dtypes.add(outputs.dtype)
        return outputs


def _train(network: nn.Module, roles: DataRoles, recipe: Recipe, **others: Any) -> list[TrainingReport]:
    return list(train_(network, roles, CLASSES, recipe, **{"seed": 1, **others}))


def _watch(roles: DataRoles, recipe: Recipe, **others: Any) -> list[list[int]]:
    network = _Watched(_network())
    network.eval()
    _train(network, roles, recipe, **others)
    return network.batches


def _join(batches: list[list[int]]) -> list[int]:
    return [image for batch in batches for image in batch]


def _metrics(reports: Sequence[TrainingReport]) -> list[tuple[int, dict[str, float], bool]]:
    """Everything in the reports that is not a clock's."""
    return [
        (r.images, {name: v for name, v in r.metrics.items() if name != "images_per_s"}, r.is_last)
        for r in reports
    ]


def _is_same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _scripted(values: Sequence[float]) -> Task:
    """A task whose evaluations give one scripted value after the other."""
    remaining = iter(values)
    return make_task("cross_entropy", lambda outputs, targets: {"gain": next(remaining)})


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(images=240, batch_size=16, lr=0.01),
        Recipe(images=240, batch_size=16, lr=0.05, optimizer="sgd"),
        Recipe(
            images=240,
            batch_size=16,
            lr=0.01,
            patience=2,
            monitor="val_accuracy",
            monitor_direction="maximize",
        ),
        Recipe(images=240, batch_size=16, lr=0.01, distillation=0.5),
        Recipe(images=240, batch_size=16, lr=0.01, channels_last=True),
        Recipe(images=240, batch_size=16, lr=0.01, shift=2, flips=True, distillation=0.5),
        Recipe(images=240, batch_size=16, lr=0.01, shift=1, rotation=9, scaling=0.1, shear=9, elastic=0.5),
        Recipe(images=240, batch_size=16, lr=0.01, warmup=0.4, clip_norm=0.5, label_smoothing=0.1),
    ],
    ids=[
        "adamw",
        "sgd",
        "patience",
        "distillation",
        "channels_last",
        "augmentation",
        "distortion",
        "smoothing",
    ],
)
def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(
    roles: DataRoles, recipe: Recipe, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"stops": (0, 25, 130), "teacher": _network(9)}
    whole = _network()
    reports = []
    for number, report in enumerate(train_(whole, roles, CLASSES, recipe, seed=1, **common)):
        report.capture().save(tmp_path / f"{number}.pt")
        reports.append(report)
    assert len(reports) >= 4
    for number in range(len(reports)):
        resumed = _network(seed=5)
        state = TrainingState.load(tmp_path / f"{number}.pt")
        rest = _train(resumed, roles, recipe, state=state, **common)
        expected = reports[number + 1 :] or reports[-1:]
        assert _metrics(rest) == _metrics(expected)
        assert _is_same(resumed, whole)


@pytest.mark.parametrize(
    "option",
    [
        {"warmup": 0.5},
        {"clip_norm": 0.1},
        {"label_smoothing": 0.1},
        {"rotation": 20.0},
        {"scaling": 0.3},
        {"shear": 20.0},
        {"elastic": 1.0},
    ],
    ids=lambda option: next(iter(option)),
)
def test_option_changes_what_is_learnt(roles: DataRoles, option: dict[str, float]) -> None:
    plain, changed = _network(), _network()
    recipe = Recipe(images=180, batch_size=30)
    _train(plain, roles, recipe)
    _train(changed, roles, replace(recipe, **option))
    assert not _is_same(plain, changed)


def test_gradients_above_the_norm_are_scaled_down_to_it_and_others_stay(roles: DataRoles) -> None:
    def measure_move(clip_norm: float | None) -> float:
        network = _network()
        recipe = Recipe(
            images=30, batch_size=30, optimizer="sgd", momentum=0.0, weight_decay=0.0, clip_norm=clip_norm
        )
        _train(network, roles, replace(recipe, lr=0.1))
        moves = [
            (after - before).flatten()
            for after, before in zip(network.parameters(), _network().parameters(), strict=True)
        ]
        return torch.cat(moves).norm().item()

    assert measure_move(0.01) == pytest.approx(0.1 * 0.01, rel=1e-3)
    assert measure_move(1e6) == measure_move(None)


def test_label_smoothing_without_classes_is_refused(roles: DataRoles) -> None:
    recipe = Recipe(images=30, label_smoothing=0.1)
    with pytest.raises(ConfigurationError, match=r"^label smoothing 0\.1 needs the loss cross_entropy"):
        list(train_(_network(), roles, make_task(nn.functional.cross_entropy), recipe, seed=0))


def test_capture_does_not_change_with_the_training_that_goes_on(roles: DataRoles) -> None:
    network = _network()
    recipe = Recipe(images=270, patience=9, monitor="val_gain", monitor_direction="maximize")
    reports = train_(network, roles, _scripted([0.9, 0.4, 0.3]), recipe, seed=0)
    state = next(reports).capture()
    before = copy.deepcopy(state)
    next(reports)
    assert torch.equal(state.model["5.weight"], before.model["5.weight"])
    assert torch.equal(state.optimizer["state"][0]["exp_avg"], before.optimizer["state"][0]["exp_avg"])
    assert state.best["n_worse"] == before.best["n_worse"]
    assert not torch.equal(state.model["5.weight"], network[5].weight)


def test_training_from_a_state_leaves_the_state_as_it_is(roles: DataRoles) -> None:
    recipe = Recipe(images=180, lr=0.01)
    state = next(train_(_network(), roles, CLASSES, recipe, seed=0)).capture()
    runs = [_network(3), _network(4)]
    for network in runs:
        _train(network, roles, recipe, state=state)
    assert _is_same(*runs)


def test_seed_decides_the_training(roles: DataRoles) -> None:
    networks = [_network() for _ in range(3)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        _train(network, roles, Recipe(images=90, batch_size=30), seed=seed)
    assert _is_same(networks[0], networks[1])
    assert not _is_same(networks[0], networks[2])


def test_global_generator_neither_matters_nor_changes(roles: DataRoles) -> None:
    networks = [_network(), _network()]
    for network, noise in zip(networks, (7, 8), strict=True):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        for _ in train_(network, roles, CLASSES, Recipe(images=180), seed=1):
            assert torch.equal(before, torch.get_rng_state())
    assert _is_same(*networks)


def test_every_epoch_shows_each_image_once_in_an_order_of_its_own(roles: DataRoles) -> None:
    batches = _watch(roles, Recipe(images=2 * N_EPOCH, batch_size=30))
    orders = [_join(batches[:3]), _join(batches[3:])]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == sorted(roles.train.inputs[:, 0, 3, 3].tolist())


def test_order_of_images_depends_on_seed_and_epoch_alone(roles: DataRoles) -> None:
    plain = _watch(roles, Recipe(images=2 * N_EPOCH, batch_size=30))
    other = _watch(roles, Recipe(images=3 * N_EPOCH, batch_size=7, lr=0.1, optimizer="sgd"), stops=(41,))
    assert _join(plain) == _join(other)[: 2 * N_EPOCH]
    assert _join(plain) != _join(_watch(roles, Recipe(images=2 * N_EPOCH), seed=2))


def test_no_batch_is_a_small_rest(roles: DataRoles) -> None:
    batches = _watch(roles, Recipe(images=N_EPOCH, batch_size=44), stops=(46,))
    assert [len(batch) for batch in batches] == [23, 23, 44]


def _normed() -> nn.Sequential:
    """A network whose batch norm has one value per channel and image."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("images", "batch_size", "stops", "sizes", "n_shown"),
    [
        (N_EPOCH + 1, 45, (), [45, 45, 2], N_EPOCH),
        (N_EPOCH, 45, (45, 46), [45, 2, 44], N_EPOCH),
        (5, 2, (), [2, 2, 2], 5),
        (1, 2, (), [2], 2),
    ],
)
def test_no_image_is_trained_on_alone(
    roles: DataRoles, images: int, batch_size: int, stops: tuple[int, ...], sizes: list[int], n_shown: int
) -> None:
    network = _Watched(_normed())
    recipe = Recipe(images=images, batch_size=batch_size)
    *_, last = _train(network, roles, recipe, stops=stops)
    assert last.images == images
    assert [len(batch) for batch in network.batches] == sizes
    assert len(set(_join(network.batches))) == n_shown
    assert all(len(set(batch)) == len(batch) for batch in network.batches)


def test_batches_of_one_that_a_network_cannot_learn_from_are_one_clear_line(roles: DataRoles) -> None:
    assert [len(batch) for batch in _watch(roles, Recipe(images=2, batch_size=1))] == [1, 1]
    with pytest.raises(ConfigurationError, match=r"^expected images enough .* batch size of 4 or more$"):
        _train(_normed(), roles, Recipe(images=2, batch_size=1))


def test_reports_come_at_epochs_stops_and_the_end(roles: DataRoles) -> None:
    reports = _train(_network(), roles, Recipe(images=200), stops=(0, 30, 90, 150, 1000))
    assert [(r.images, r.is_last) for r in reports] == [
        (0, False), (30, False), (90, False), (150, False), (180, False), (200, True),
    ]  # fmt: skip
    assert set(reports[0].metrics) == {"val_loss", "val_accuracy"}
    trained = {"val_loss", "val_accuracy", "train_loss", "lr", "images_per_s"}
    assert all(set(report.metrics) == trained for report in reports[1:])


def test_no_images_give_one_report_and_no_training(roles: DataRoles) -> None:
    network = _network()
    reports = _train(network, roles, Recipe(images=0, patience=1))
    assert [(r.images, r.is_last) for r in reports] == [(0, True)]
    assert _is_same(network, _network())


def test_training_learns_and_its_learning_rate_falls(roles: DataRoles) -> None:
    reports = _train(_network(), roles, Recipe(images=20 * N_EPOCH, batch_size=16, lr=0.01))
    assert reports[-1].metrics["val_accuracy"] >= 0.9
    assert reports[-1].metrics["train_loss"] < 0.5 * reports[0].metrics["train_loss"]
    rates = [report.metrics["lr"] for report in reports]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 * rates[0]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_patience_stops_and_keeps_the_best_weights(roles: DataRoles, direction: str) -> None:
    values = [0.5, 0.7, 0.6, 0.7, 0.9]
    if direction == "minimize":
        values = [-value for value in values]
    recipe = Recipe(images=900, patience=2, monitor="val_gain", monitor_direction=direction)
    network = _network()
    weights = []
    reports = []
    for report in train_(network, roles, _scripted(values), recipe, seed=0):
        reports.append(report)
        weights.append(copy.deepcopy(network))
    assert [r.is_last for r in reports] == [False, False, False, True]
    assert reports[-1].images == 4 * N_EPOCH
    assert reports[-1].metrics["val_gain"] == values[1]
    assert reports[-1].metrics["val_loss"] == reports[1].metrics["val_loss"]
    assert _is_same(network, weights[1])
    assert not _is_same(weights[2], weights[1])


def test_best_weights_are_restored_at_the_full_resource_too(roles: DataRoles) -> None:
    recipe = Recipe(images=3 * N_EPOCH, patience=5, monitor="val_gain", monitor_direction="maximize")
    reports = list(train_(_network(), roles, _scripted([0.2, 0.9, 0.4]), recipe, seed=0))
    assert reports[-1].metrics["val_gain"] == 0.9
    assert torch.equal(
        reports[-1].capture().model["5.weight"], reports[-1].capture().best["model"]["5.weight"]
    )


def test_fine_tuning_that_only_harms_keeps_the_weights_it_began_with(roles: DataRoles) -> None:
    network = _network()
    recipe = Recipe(images=3 * N_EPOCH, patience=2, monitor="val_gain", monitor_direction="maximize")
    list(train_(network, roles, _scripted([0.9, 0.4, 0.3]), recipe, seed=0, stops=(0,)))
    assert _is_same(network, _network())


def test_unknown_metric_to_monitor_is_refused(roles: DataRoles) -> None:
    recipe = Recipe(images=90, patience=1, monitor="accuracy")
    with pytest.raises(
        ConfigurationError, match=r"^unknown metric to monitor 'accuracy'; did you mean 'val_acc"
    ):
        _train(_network(), roles, recipe)


def test_student_learns_from_its_teacher_which_stays_as_it_is(roles: DataRoles) -> None:
    teacher = _network(2).train()
    before = copy.deepcopy(teacher)
    student = _network()
    recipe = Recipe(images=60 * N_EPOCH, batch_size=30, lr=0.02, weight_decay=0.0, distillation=1.0)
    inputs = roles.normalise(roles.train.inputs)

    def measure_distance() -> float:
        with torch.no_grad():
            outputs = student.eval()(inputs).log_softmax(1) - copy.deepcopy(before).eval()(
                inputs
            ).log_softmax(1)
        return outputs.abs().mean().item()

    apart = measure_distance()
    _train(student, roles, recipe, teacher=teacher)
    assert measure_distance() < 0.5 * apart
    assert _is_same(teacher, before)
    assert all(module.training for module in teacher.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in teacher.parameters())


def test_teacher_is_asked_once_for_each_image_unless_images_change(roles: DataRoles) -> None:
    def count_asked(recipe: Recipe) -> int:
        asked = []
        teacher = _network(2)
        teacher.forward = lambda inputs: asked.append(len(inputs)) or type(teacher).forward(teacher, inputs)
        _train(_network(), roles, recipe, teacher=teacher)
        return sum(asked)

    three_passes = Recipe(images=3 * N_EPOCH, distillation=0.5)
    assert count_asked(three_passes) == N_EPOCH
    assert count_asked(replace(three_passes, shift=1)) == 3 * N_EPOCH
    assert count_asked(replace(three_passes, images=N_EPOCH // 2)) == N_EPOCH // 2


def test_distillation_without_a_teacher_is_refused(roles: DataRoles) -> None:
    with pytest.raises(ConfigurationError, match=r"^distillation 0\.5 needs a teacher; "):
        _train(_network(), roles, Recipe(images=90, distillation=0.5))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("float32", torch.float32), ("bfloat16", torch.bfloat16)],
)
def test_precision_is_that_of_the_recipe(roles: DataRoles, precision: str, dtype: torch.dtype) -> None:
    network = _Watched(_network())
    _train(network, roles, Recipe(images=90, precision=precision))
    assert network.dtypes == {dtype}
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize(("major", "is_bfloat16"), [(7, False), (8, True)])
def test_automatic_precision_is_bfloat16_only_where_a_gpu_has_it(
    roles: DataRoles, monkeypatch: pytest.MonkeyPatch, major: int, is_bfloat16: bool
) -> None:
    properties = SimpleNamespace(major=major)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)  # it emulates it
    recipe = Recipe(images=90)
    run = TrainingRun(_network(), roles, make_task(), recipe, 0, torch.device("cuda"), None)
    assert run.is_bfloat16 is is_bfloat16


@pytest.mark.parametrize("is_channels_last", [True, False])
def test_channels_lie_innermost_only_where_asked_and_only_while_training(
    roles: DataRoles, is_channels_last: bool
) -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 2), nn.Conv2d(6, 4, 2), nn.Flatten(), nn.Linear(16, 3))
    seen: set[bool] = set()
    network[0].register_forward_hook(
        lambda module, inputs, output: seen.add(output.is_contiguous(memory_format=torch.channels_last))
    )
    _train(network, roles, Recipe(images=90, batch_size=30, channels_last=is_channels_last))
    assert seen == {is_channels_last}
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_loss_that_is_not_finite_raises_one_clear_line(roles: DataRoles) -> None:
    task = make_task(lambda outputs, targets: outputs.sum(1) * float("nan"), "accuracy")
    network = _network()
    message = (
        r"^the training loss is not finite after 90 training images at learning rate .*; try a lower lr.*$"
    )
    with pytest.raises(TrainingDiverged, match=message):
        list(train_(network, roles, task, Recipe(images=900), seed=0))
    assert network.training, "the modes are restored"


def test_long_epoch_that_diverges_is_noticed_before_its_end(roles: DataRoles) -> None:
    task = make_task(lambda outputs, targets: outputs.sum(1) * float("inf"), "accuracy")
    with pytest.raises(TrainingDiverged, match=r"after 20 training images"):
        list(train_(_network(), roles, task, Recipe(images=900, batch_size=1), seed=0))


def test_metric_that_is_not_finite_raises_and_is_named(roles: DataRoles) -> None:
    with pytest.raises(TrainingDiverged, match=r"^val_gain is not finite after 90 training images"):
        list(train_(_network(), roles, _scripted([float("nan")]), Recipe(images=90), seed=0))


def test_regression_trains_like_any_task(roles: DataRoles) -> None:
    targets = {
        name: replace(getattr(roles, name), targets=getattr(roles, name).inputs.float().mean((1, 2, 3)) / 255)
        for name in ("train", "calibration", "validation", "test")
    }
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    recipe = Recipe(images=40 * N_EPOCH, batch_size=10, lr=0.01)
    reports = list(train_(network, replace(roles, n_classes=None, **targets), VALUES, recipe, seed=0))
    assert reports[-1].metrics["val_mse"] < 0.1 * reports[0].metrics["val_mse"]


def test_frozen_parameters_stay(roles: DataRoles) -> None:
    network = _network()
    network[0].requires_grad_(False)
    _train(network, roles, Recipe(images=90, lr=0.1, weight_decay=0.5))
    assert torch.equal(network[0].weight, _network()[0].weight)
    assert not torch.equal(network[5].weight, _network()[5].weight)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weight_decay_shrinks_weights_but_not_biases_or_batch_norm(roles: DataRoles, optimizer: str) -> None:
    task = make_task(lambda outputs, targets: 0 * outputs.sum(1), "accuracy")
    recipe = Recipe(images=30, batch_size=30, optimizer=optimizer, lr=0.1, momentum=0.0, weight_decay=0.5)
    network = _network()
    list(train_(network, roles, task, recipe, seed=0))
    before = _network()
    for name, parameter in network.named_parameters():
        factor = 1 - 0.1 * 0.5 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter, factor * before.get_parameter(name))


def test_network_without_parameters_that_learn_is_refused(roles: DataRoles) -> None:
    with pytest.raises(ConfigurationError, match=r"^expected a network with parameters that learn"):
        _train(_network().requires_grad_(False), roles, Recipe(images=90))


def test_modes_come_back_at_the_end_and_when_the_caller_leaves(roles: DataRoles) -> None:
    network = _network().eval()
    _train(network, roles, Recipe(images=90))
    assert not any(module.training for module in network.modules())
    reports = train_(network, roles, CLASSES, Recipe(images=180), seed=0)
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    assert not any(module.training for module in network.modules())


def test_state_of_a_longer_training_is_refused(roles: DataRoles) -> None:
    state = next(train_(_network(), roles, CLASSES, Recipe(images=180), seed=0)).capture()
    with pytest.raises(
        ConfigurationError, match=r"^expected a state of at most 60 training images, got one of 90$"
    ):
        _train(_network(), roles, Recipe(images=60), state=state)


@pytest.mark.parametrize("extra", [{}, {"shift": 2, "flips": True}, {"patience": 2}], ids=str)
def test_training_goes_on_bit_for_bit_from_between_two_reports(
    roles: DataRoles, extra: dict[str, Any], tmp_path: Path
) -> None:
    recipe = Recipe(images=240, batch_size=16, lr=0.01, **extra)
    whole = _network()
    expected = _metrics(_train(whole, roles, recipe, stops=(0, 25)))
    calls = iter(range(1000))
    pauses, reports = [], []
    for report in train_(
        _network(), roles, CLASSES, recipe, seed=1, stops=(0, 25), wants_pause=lambda: next(calls) % 3 == 1
    ):
        if report.is_pause:
            assert report.metrics == {}
            report.capture().save(tmp_path / f"{report.images}.pt")
            pauses.append(report.images)
        else:
            reports.append(report)
    assert _metrics(reports) == expected  # pausing changes nothing
    assert len(pauses) >= 4
    for images in pauses:
        resumed = _network(seed=5)
        state = TrainingState.load(tmp_path / f"{images}.pt")
        assert state.reported_images < images == state.images
        rest = _train(resumed, roles, recipe, state=state, stops=(0, 25))
        assert _metrics(rest) == expected[-len(rest) :]
        assert rest[0].images > images
        assert _is_same(resumed, whole)


class _Greedy(nn.Module):
    """Takes memory that no machine has when it is shown too many images at once."""

    def __init__(self, n_most: int) -> None:
        super().__init__()
        self.n_most = n_most
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        nn.init.zeros_(self.inner[1].weight)
        nn.init.zeros_(self.inner[1].bias)
        self.register_buffer("n_seen", torch.zeros(()))  # as batch norm counts, before memory runs out

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.n_seen += len(images)
        if self.training and len(images) > self.n_most:
            torch.empty(2**55)
        return self.inner(images)


def test_out_of_memory_halves_the_batch_and_learns_from_the_whole_one(
    roles: DataRoles, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = Recipe(images=270, batch_size=45, lr=0.05, optimizer="sgd")
    ample, scarce = _Greedy(45), _Greedy(23)
    expected, reports = _train(ample, roles, recipe), _train(scarce, roles, recipe)
    for mine, other in zip(scarce.parameters(), ample.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)
    assert ample.inner[1].weight.abs().max() > 0.01
    assert ample.n_seen == scarce.n_seen == 270
    assert reports[-1].metrics["train_loss"] == pytest.approx(expected[-1].metrics["train_loss"], rel=1e-5)
    said = [r.message for r in caplog.records if "out of memory" in r.message]
    assert said == ["out of memory: batches of 45 images in two halves from now on"]


def test_memory_that_is_too_small_for_half_a_batch_fails_in_one_line(roles: DataRoles) -> None:
    with pytest.raises(ConfigurationError, match=r"^expected memory for 23 images .* batch size below 45$"):
        _train(_Greedy(20), roles, Recipe(images=90, batch_size=45))


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("code from the file ran",))


def _write_bomb(path: Path) -> None:
    path.write_bytes(pickle.dumps({"schema": 1, "images": _Bomb()}))


def _write_future(path: Path) -> None:
    torch.save({"schema": 99}, path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"cannot be read: .*No such file"),
        (lambda path: path.write_bytes(b"torn"), r"cannot be read: "),
        (_write_bomb, r"cannot be read: "),
        (_write_future, r"of schema 2 at .*, got schema 99$"),
    ],
    ids=["missing", "torn", "code", "schema"],
)
def test_state_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, write: Any, message: str) -> None:
    path = tmp_path / "state.pt"
    write(path)
    with pytest.raises(StudyError, match=message) as caught:
        TrainingState.load(path)
    assert "\n" not in str(caught.value)


def test_state_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    TrainingState(1, {}, {}).save(path)
    with pytest.raises(Exception, match="pickle"):
        TrainingState(2, {}, {"broken": lambda: None}).save(path)
    assert TrainingState.load(path).images == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]

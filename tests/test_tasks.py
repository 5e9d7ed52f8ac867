"""Losses, evaluations and distillation against numbers worked out by hand."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from torch import Tensor, nn

from dirprune.errors import ConfigurationError
from dirprune.tasks import make_task

LOGITS = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # probabilities (1/4, 3/4) and (1/2, 1/2)


def test_cross_entropy_is_given_per_example() -> None:
    losses = make_task().loss(LOGITS, torch.tensor([1, 0]))
    torch.testing.assert_close(losses, torch.tensor([math.log(4 / 3), math.log(2)]))


def test_smoothed_targets_weigh_every_class() -> None:
    task, targets = make_task(), torch.tensor([1, 0])
    soft = torch.tensor([[0.05, 0.95], [0.95, 0.05]])  # a tenth of each target is spread over both classes
    expected = nn.functional.cross_entropy(LOGITS, soft)
    torch.testing.assert_close(task.smoothed_loss(LOGITS, targets, 0.1), expected)
    plain = (math.log(4 / 3) + math.log(2)) / 2
    assert task.smoothed_loss(LOGITS, targets, 0.0).item() == pytest.approx(plain)


def test_cross_entropy_of_a_segmentation_is_the_mean_over_its_pixels() -> None:
    outputs = LOGITS.T.reshape(1, 2, 1, 2)  # one image of two pixels
    losses = make_task().loss(outputs, torch.tensor([[[1, 0]]]))
    torch.testing.assert_close(losses, torch.tensor([(math.log(4 / 3) + math.log(2)) / 2]))


def test_mse_is_given_per_example_and_never_broadcasts() -> None:
    task = make_task("mse", "mse")
    outputs = torch.tensor([[1.0], [2.0], [3.0]])
    targets = torch.tensor([0.0, 2.0, 5.0])
    assert task.loss(outputs, targets).tolist() == [1.0, 0.0, 4.0]
    assert task.evaluate(outputs, targets) == {"mse": pytest.approx(5 / 3)}
    assert task.loss(torch.tensor([[1.0, 3.0]]), torch.tensor([[0, 0]], dtype=torch.uint8)).tolist() == [5.0]


def test_mse_of_class_labels_is_refused() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"shape of the outputs, \(2, 2\), got \(2,\); class labels want 'cross_entropy'",
    ):
        make_task("mse").loss(LOGITS, torch.tensor([1, 0]))


def test_accuracy_is_a_fraction() -> None:
    outputs = torch.eye(3)[[0, 1, 2, 2]]
    assert make_task().evaluate(outputs, torch.tensor([0, 1, 2, 0])) == {"accuracy": 0.75}


@pytest.mark.parametrize(
    "loss", ["cross_entropy", nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="none")]
)
def test_summed_loss_is_the_sum_over_examples_whatever_the_loss_returns(loss) -> None:
    total = make_task(loss).summed_loss(LOGITS, torch.tensor([1, 0]))
    torch.testing.assert_close(total, torch.tensor(math.log(4 / 3) + math.log(2)))


def test_a_loss_of_another_shape_is_refused() -> None:
    task = make_task(nn.MSELoss(reduction="none"))
    with pytest.raises(
        ConfigurationError, match=r"expected a loss of shape \(2,\), .* got \(2, 2\); try \.flatten"
    ):
        task.summed_loss(LOGITS, torch.zeros(2, 2))


def test_distillation_of_classes_is_the_softened_divergence() -> None:
    temperature = 2.0
    teacher = torch.tensor([[0.0, 2 * math.log(3.0)]])  # softened: (1/4, 3/4)
    student = torch.zeros(1, 2)  # (1/2, 1/2)
    expected = 4 * (0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5))
    assert make_task().distil(student, teacher, temperature).item() == pytest.approx(expected)
    assert make_task().distil(teacher, teacher, temperature).item() == pytest.approx(0.0, abs=1e-7)


def test_distillation_of_anything_else_is_the_squared_distance_of_outputs() -> None:
    for loss in ("mse", nn.MSELoss()):
        distilled = make_task(loss, "mse").distil(torch.zeros(2, 2), torch.full((2, 2), 3.0), 2.0)
        assert distilled.item() == 9.0


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(
        ConfigurationError, match="unknown loss 'cross_entropi'; did you mean 'cross_entropy'"
    ):
        make_task("cross_entropi")
    with pytest.raises(ConfigurationError, match="unknown evaluation 'acuracy'; did you mean 'accuracy'"):
        make_task("mse", "acuracy")


def my_evaluation(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    return {"worst": (outputs - targets).abs().max()}


def test_an_evaluation_of_ones_own_gives_floats() -> None:
    metrics = make_task("mse", my_evaluation).evaluate(torch.zeros(2), torch.tensor([1.0, -3.0]))
    assert metrics == {"worst": 3.0}
    assert type(metrics["worst"]) is float


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (0.5, r"returns a mapping of metric names to numbers, got a float; try \{'my_metric': value\}"),
        ({"f1": "high"}, "expected a number for each metric name, got str for 'f1'"),
        ({"f1": torch.zeros(3)}, "expected a number for each metric name, got Tensor for 'f1'"),
        ({1: 0.5}, "expected a number for each metric name, got float for 1"),
    ],
)
def test_an_evaluation_that_returns_something_else_is_refused(returned, message: str) -> None:
    task = make_task("mse", lambda outputs, targets: returned)
    with pytest.raises(ConfigurationError, match=message):
        task.evaluate(torch.zeros(2), torch.zeros(2))


def test_identities_say_what_loss_and_evaluation_are() -> None:
    task = make_task("mse", my_evaluation)
    assert task.loss_identity == {"name": "mse"}
    assert task.evaluation_identity["name"] == "my_evaluation"


def test_a_task_travels_to_another_process() -> None:
    task = pickle.loads(pickle.dumps(make_task("cross_entropy", my_evaluation)))
    assert task.evaluate(torch.zeros(2), torch.ones(2)) == {"worst": 1.0}
    assert task.averaged is None
    named = pickle.loads(pickle.dumps(make_task("mse", "accuracy")))
    assert set(named.averaged) == {"loss", "accuracy"}

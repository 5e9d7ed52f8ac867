"""Tables are aligned, and progress says what is left without flooding the screen."""

from __future__ import annotations

import pytest

from dirprune.cli.printing import TrainingProgress, format_duration, format_table
from dirprune.training import TrainingReport, TrainingState


def test_table_is_aligned() -> None:
    table = format_table(["", "dense", "pruned"], [["MACs", "498,750", "9"], ["accuracy", "0.9", "0.85"]])
    assert table.splitlines() == [
        "            dense  pruned",
        "MACs      498,750       9",
        "accuracy      0.9    0.85",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (75, "1:15"), (3600, "1:00:00"), (-3, "0:00")]
)
def test_duration_is_minutes_and_seconds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def report(images: int, is_last: bool = False) -> TrainingReport:
    metrics = {"train_loss": 0.5, "val_accuracy": 0.9, "images_per_s": 1234.5}
    return TrainingReport(images, metrics, is_last, lambda: TrainingState(images, {}, {}))


def test_progress_prints_at_most_one_line_a_second_and_always_the_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([100.0, 102.0, 102.5, 104.0, 104.1])
    progress = TrainingProgress(4000, 1000, clock=lambda: next(times))
    for images in (1000, 2000, 3000):
        progress.show(report(images))
    progress.show(report(4000, is_last=True))
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/4  train loss 0.5000  val accuracy 0.9000  1,234 images/s  0:06 left at most",
        "epoch 3/4  train loss 0.5000  val accuracy 0.9000  1,234 images/s  0:01 left at most",
        "epoch 4/4  train loss 0.5000  val accuracy 0.9000  1,234 images/s  done in 0:04",
    ]

"""Tables are aligned, and progress says what is left without flooding the screen."""

from __future__ import annotations

import io

import pytest

from dirprune.cli.printing import ERASE, ScoringProgress, TrainingProgress, format_duration, format_table
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
        "epoch 1/4  train loss 0.5000  val accuracy 0.9000  1,234 images/s  0:02 left at most",
        "epoch 3/4  train loss 0.5000  val accuracy 0.9000  1,234 images/s  0:01 left at most",
        "epoch 4/4  train loss 0.5000  val accuracy 0.9000  1,234 images/s  done in 0:04",
    ]


def test_time_left_of_a_training_that_goes_on_is_by_what_this_run_has_trained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, 4.0, 10.0])
    progress = TrainingProgress(20_000, 1000, clock=lambda: next(times))
    progress.show(report(8000))
    progress.show(report(9000))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("1,234 images/s  0:10 left at most")  # 12,000 images that are left
    assert second.endswith("1:06 left at most")  # 11 epochs of 6 s


class Screen(io.StringIO):
    """Takes what is printed, as a terminal or as a file."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_scoring_says_every_ten_seconds_what_is_left_and_how_long_it_takes_in_all() -> None:
    clock, screen = Clock(), Screen(is_terminal=False)
    with ScoringProgress(["conv1", "conv2"], clock, screen) as progress:
        for seconds, n_done in ((0, 200), (5, 300), (10, 400), (19, 500), (40, 1200)):
            clock.now = 100.0 + seconds
            progress("conv2", n_done, 1200)  # 200 were there before
    assert screen.getvalue().splitlines() == [
        "scoring: conv2 (2 of 2) 400/1,200, about 0:40 left of 0:50",
        "scoring: conv2 (2 of 2) 1,200/1,200",
    ]


def test_quick_scoring_prints_nothing() -> None:
    for is_terminal, seconds in ((True, 0.4), (False, 9.0)):
        clock, screen = Clock(), Screen(is_terminal)
        with ScoringProgress(["conv1"], clock, screen) as progress:
            progress("conv1", 0, 10)
            clock.now += seconds
            progress("conv1", 10, 10)
        assert screen.getvalue() == ""


def test_on_a_terminal_one_line_is_rewritten_and_gone_at_the_end() -> None:
    clock, screen = Clock(), Screen(is_terminal=True)
    with ScoringProgress(["conv1"], clock, screen) as progress:
        for n_done in (0, 5, 6):
            progress("conv1", n_done, 10)
            clock.now += 1
    assert screen.getvalue() == "".join(
        [
            f"{ERASE}scoring: conv1 (1 of 1) 5/10, about 0:01 left of 0:02",
            f"{ERASE}scoring: conv1 (1 of 1) 6/10, about 0:01 left of 0:03",
            ERASE,
        ]
    )


def test_work_within_work_is_told_together_and_a_new_round_begins_anew() -> None:
    clock, screen = Clock(), Screen(is_terminal=False)
    with ScoringProgress(["conv1"], clock, screen) as progress:
        progress("greedy", 0, 4)
        progress("conv1", 8, 8)  # done, so it is not told again
        clock.now += 10
        progress("greedy", 1, 4)
        clock.now += 5
        progress("conv1", 2, 8)
        clock.now += 5
        progress("conv1", 4, 8)
    assert screen.getvalue().splitlines() == [
        "scoring: greedy 1/4, about 0:30 left of 0:40",
        "scoring: greedy 1/4, about 1:00 left of 1:20; conv1 (1 of 1) 4/8, about 0:10 left of 0:15",
    ]

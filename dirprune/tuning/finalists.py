"""Train the finalists of a study: its trials once more, with another resource and other seeds, on Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dirprune.errors import ConfigurationError, StudyError
from dirprune.files import read_json, write_json
from dirprune.records.events import read_events, replay
from dirprune.records.finalists import FinalTraining, read_training
from dirprune.records.folder import StudyFolder
from dirprune.records.mirror import fetch, fetch_events, remove
from dirprune.records.record import TrialRecord
from dirprune.study.space import Configuration

SCHEMA = 1


@dataclass(frozen=True)
class FinalistOptions:
    """How a study's finalists are trained.

    Attributes:
        n_finalists: Members of the front at most; >= 1.
        epochs: Fine-tuning of each, in passes over the training role; > 0.
        n_seeds: Trainings of each; >= 1.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    n_finalists: int
    epochs: float
    n_seeds: int = 3

    def __post_init__(self) -> None:
        if self.n_finalists < 1 or self.n_seeds < 1 or not self.epochs > 0:
            raise ConfigurationError(
                f"expected at least 1 finalist, 1 seed and epochs above 0, got {self.n_finalists}, "
                f"{self.n_seeds} and {self.epochs:g}; try --finalists 3 --final-seeds 3 --final-epochs 10"
            )


def check_epochs(folder: StudyFolder, options: FinalistOptions) -> None:
    """Check that finalists are trained as those that a study has already.

    Raises:
        StudyError: If they were trained for another number of epochs.
    """
    if not _path(folder).exists():
        return
    stored = read_json(_path(folder), SCHEMA)["epochs"]
    if stored != options.epochs:
        raise StudyError(
            f"finalists of this study are trained for {stored:g} epochs, got {options.epochs:g}; "
            f"give --final-epochs {stored:g}, or remove {folder.finalists_dir}"
        )


def _path(folder: StudyFolder) -> Path:
    return folder.finalists_dir / "finalists.json"


@dataclass(frozen=True)
class Training:
    """One training of one finalist, as Ray is given it.

    Attributes:
        number: Its place among the study's trainings.
        configuration: The trial's own choices.
        repetition: Which seed, from 0.
    """

    number: int
    configuration: Configuration
    repetition: int

    def to_json(self) -> dict[str, Any]:
        """Return the training as plain data."""
        return {**self.configuration.to_json(), "repetition": self.repetition}


class FinalistAccounts:
    """Hand out the trainings that are missing; what has finished is read from the finalists' own events.

    Finalists are no trials: Optuna hears nothing of them.

    Args:
        folder: The study's folder.
        configurations: What the finalists' trials had chosen, by number.
        trials: The study's trials, by number.
        options: How they are trained.
        tell: Called with each training that reported or ended.

    Raises:
        StudyError: If finalists of this study were trained for another number of epochs.
    """

    def __init__(
        self,
        folder: StudyFolder,
        configurations: Mapping[int, Configuration],
        trials: Mapping[int, TrialRecord],
        options: FinalistOptions,
        tell: Callable[[FinalTraining], None],
    ) -> None:
        self.folder, self.options, self.trials, self.tell = folder, options, trials, tell
        self.failures: dict[tuple[int, int], str] = {}
        check_epochs(folder, options)
        folder.finalists_dir.mkdir(parents=True, exist_ok=True)
        write_json(_path(folder), {"epochs": options.epochs}, SCHEMA)
        pairs = [(number, seed) for seed in range(options.n_seeds) for number in configurations]
        for pair in pairs:
            if self.result(*pair) is not None:  # its driver may have been killed just before it heard so
                self._remove_checkpoint(*pair)
        self._trainings = {
            place: Training(place, configurations[number], seed)
            for place, (number, seed) in enumerate(pairs)
            if self.result(number, seed) is None
        }
        self._waiting = list(self._trainings.values())

    @property
    def has_work(self) -> bool:
        """Whether a training is missing."""
        return bool(self._waiting)

    @property
    def may_have_more(self) -> bool:
        """Nothing that runs lets another training start."""
        return False

    def result(self, number: int, repetition: int) -> dict[str, float] | None:
        """Return the metrics of a training; None if it has not finished."""
        own = self.folder.finalist(number, repetition)
        if not own.model_dir(number).exists():  # what came home has ended
            fetch_events(own, number)
            fetch(own, own.model_dir(number))
        finished = replay(read_events(own.events(number))).finished
        return None if finished is None else dict(finished["metrics"])

    def next_configuration(self) -> Training | None:
        """Hand out the next training; None when all were."""
        return self._waiting.pop(0) if self._waiting else None

    def reported(self, number: int, images: int, metrics: Mapping[str, float]) -> bool:
        """Let a training go on: nothing is compared on the way."""
        self.tell(self._read(number))
        return True

    def completed(self, number: int, metrics: Mapping[str, float]) -> None:
        """Remove the checkpoint of a training; its own events have said already that it has finished."""
        training = self._trainings[number]
        trial = training.configuration.number
        own = self.folder.finalist(trial, training.repetition)
        fetch(own, own.model_dir(trial))
        self._remove_checkpoint(trial, training.repetition)
        self.tell(self._read(number))

    def halted(self, number: int, images: int) -> None:
        """Take the end of a training that nobody asked for as its failure."""
        self.failed(number, f"it ended after {images} images")

    def failed(self, number: int, reason: str = "") -> None:
        """Keep why a training failed; the others go on."""
        read = self._read(number)
        reason = reason or "its worker was lost too often (killed, or out of memory)"
        self.failures[read.record.number, read.repetition] = reason
        self.tell(replace(read, record=replace(read.record, state="FAIL", reason=reason)))

    def is_preempted(self, number: int) -> bool:
        """Whether the worker of a training's newest attempt was told to end."""
        training = self._trainings[number]
        trial = training.configuration.number
        own = self.folder.finalist(trial, training.repetition)
        fetch_events(own, trial)
        return replay(read_events(own.events(trial))).is_preempted

    def _remove_checkpoint(self, number: int, repetition: int) -> None:
        own = self.folder.finalist(number, repetition)
        remove(own, own.checkpoint_dir(number))

    def _read(self, number: int) -> FinalTraining:
        training = self._trainings[number]
        trial = training.configuration.number
        fetch_events(self.folder.finalist(trial, training.repetition), trial)
        return read_training(self.folder, self.trials[trial], training.repetition)

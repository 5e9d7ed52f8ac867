"""The least validation accuracy at which a network is worth having."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dirprune.errors import ConfigurationError
from dirprune.study.objectives import Objective

METRIC = "val_accuracy"
DENSE = "dense-"
REPAIRED = 6.0


def check_floor(text: str | float) -> None:
    """Check how a least accuracy is written: a fraction such as 0.95, or "dense-0.02".

    Raises:
        ConfigurationError: If it is neither, no fraction in [0, 1], or one that no network exceeds.
    """
    written = str(text)
    number = written.removeprefix(DENSE)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        hint = f"; {value:g}% is {value / 100:g}" if 1 < value <= 100 else ""
        raise ConfigurationError(
            f"expected a least accuracy in [0, 1], or so far below the dense network's, got {text!r}{hint}; "
            "try 0.95, or dense-0.02 for two points below"
        )
    if not written.startswith(DENSE):
        check_exceedable(value, written)


def check_exceedable(accuracy: float, written: str) -> None:
    """Check that a network can be better than a least accuracy, from which the hypervolume counts.

    Args:
        accuracy: What it comes to, a fraction.
        written: How it is written.

    Raises:
        ConfigurationError: If none can.
    """
    if accuracy >= 1:
        source = f" ({written})" if written.startswith(DENSE) else ""
        raise ConfigurationError(
            f"expected a least accuracy below 1, which no network exceeds, got {accuracy:g}{source}; nothing "
            "could count in the hypervolume; try 0.95, or dense-0.02 for two points below the dense one"
        )


def normalise(text: str | float | None) -> str | None:
    """Return a least accuracy as it is stored, however it was written: 0.90 and "0.9" are the same."""
    if text is None:
        return None
    sign = DENSE if str(text).startswith(DENSE) else ""
    return f"{sign}{float(str(text).removeprefix(DENSE))!r}"


@dataclass(frozen=True)
class Floor:
    """A least accuracy on validation, for trials whose objectives have it.

    Attributes:
        accuracy: Least accuracy, a fraction.
        place: Which of the objectives it is of.
    """

    accuracy: float
    place: int

    @classmethod
    def resolve(
        cls, text: str | float | None, objectives: Sequence[Objective], dense: Mapping[str, float]
    ) -> Floor | None:
        """Return the floor that a study asks for; None if it asks for none.

        Args:
            text: As `check_floor` takes it.
            objectives: What the study trades; one that has a floor trades val_accuracy.
            dense: The dense network's metrics.
        """
        if text is None:
            return None
        place = [objective.metric for objective in objectives].index(METRIC)
        number = float(str(text).removeprefix(DENSE))
        is_relative = str(text).startswith(DENSE)
        return cls(max(0.0, dense[METRIC] - number) if is_relative else number, place)

    def least_promise(self, dense: Mapping[str, float]) -> float:
        """Return what share of the dense network's accuracy is worth a trial before any fine-tuning.

        Six times the loss of accuracy that the floor allows may be repaired: ResNet-20 keeps a fifth of what
        a promise lacks after two passes over a fifth of the images, and a tenth after three over all of them.
        """
        if not dense[METRIC] > 0:  # none has anything to lose
            return 0.0
        return max(0.0, 1 - REPAIRED * max(0.0, 1 - self.accuracy / dense[METRIC]))

    def shortfall(self, losses: Sequence[float]) -> float:
        """Return how far a trial is below the floor; not above 0 if it is not.

        Args:
            losses: Of its objectives: lower is better, so that accuracy counts negatively.
        """
        return self.accuracy + losses[self.place]

    def allows(self, metrics: Mapping[str, float]) -> bool:
        """Return whether a network is not below the floor."""
        return metrics[METRIC] >= self.accuracy

    def compare(self, dense: Mapping[str, float]) -> str:
        """Return a warning where the dense network itself is below the floor; empty elsewhere."""
        if self.allows(dense):
            return ""
        return (
            f"warning: the dense network's {METRIC} of {dense[METRIC]:.4f} is below the least one of "
            f"{self.accuracy:g}; only networks that are better than it will be on the front"
        )

    def raised(self, reference_point: Mapping[str, float]) -> dict[str, float]:
        """Return a reference point whose accuracy is at least the floor's."""
        return {**reference_point, METRIC: max(self.accuracy, reference_point[METRIC])}

"""The options of the Shapley methods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dirprune.errors import ImportanceError, suggest
from dirprune.importance.coalitions import VALUES
from dirprune.importance.shapley.partial import ADDING
from dirprune.importance.shapley.with_shap import EXPLAINERS


@dataclass(frozen=True)
class ValueOptions:
    """Options of every Shapley method.

    Attributes:
        value: What a coalition is worth: "loss" (minus the mean loss) or "accuracy".
    """

    value: str = "loss"

    def __post_init__(self) -> None:
        _check_choice("value", self.value, VALUES)


@dataclass(frozen=True)
class FixedOptions(ValueOptions):
    """Options of a sampled method whose budget is given.

    Attributes:
        evaluations: Coalitions to evaluate in each group; "default" is 2 n + 2 and another 2 n + 98, at most
            1,000 others, for n channels. At least n + 1 (2 n + 2 for "shapley-shap"), at most 2^20.
    """

    words: ClassVar[tuple[str, ...]] = ("default",)
    """What `evaluations` may be beside a number."""

    evaluations: int | str = "default"

    def __post_init__(self) -> None:
        """Check words; how many evaluations are too few, each estimator says of the groups at hand."""
        super().__post_init__()
        if isinstance(self.evaluations, str) and self.evaluations not in self.words:
            raise ImportanceError(
                f"evaluations must be a whole number, {' or '.join(map(repr, self.words))}, "
                f"got {self.evaluations!r}{suggest(self.evaluations, self.words)}"
            )


@dataclass(frozen=True)
class SampledOptions(FixedOptions):
    """Options of a sampled method that knows when to stop.

    Attributes:
        evaluations: Coalitions to evaluate in each group; "default" is 2 n + 2 and another 2 n + 98, at most
            1,000 others, for n channels; "auto" doubles the budget until the order around the cut is settled:
            intervals apart, or three budgets that agree, which is no proof; half of all or more become all.
            At least n + 1 (n + 2 for "shapley", 2 n for "shapley-kernel"), at most 2^20.
        cut: Keep ratio at which "auto" looks, in (0, 1).
    """

    words: ClassVar[tuple[str, ...]] = ("default", "auto")

    cut: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.cut < 1:
            raise ImportanceError(f"cut must be a keep ratio in (0, 1), got {self.cut}; half is 0.5")


@dataclass(frozen=True)
class PartialOptions(ValueOptions):
    """Options of `ShapleyPartial`.

    Attributes:
        k: All coalitions of at most k channels, and all that lack at most k; in 1 .. n for n channels.
        adding: "both"; "yes" for the first kind alone (channels added to none), "no" for the second alone.
    """

    k: int = 1
    adding: str = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 1:
            raise ImportanceError(
                f"k must be at least 1 and at most the number of channels, got {self.k}; try k=1"
            )
        _check_choice("adding", self.adding, ADDING)


@dataclass(frozen=True)
class ShapOptions(FixedOptions):
    """Options of `ShapleyShap`.

    Attributes:
        explainer: "kernel" or "permutation".
    """

    explainer: str = "kernel"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("explainer", self.explainer, EXPLAINERS)


def _check_choice(name: str, choice: str, known: tuple[str, ...]) -> None:
    if choice not in known:
        words = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
        raise ImportanceError(f"{name} must be {words}, got {choice!r}{suggest(choice, known)}")

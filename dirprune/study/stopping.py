"""When a search has come to its end before all its trials: pure rules, without clock and storage."""

from __future__ import annotations

import math
import re

from dirprune.errors import ConfigurationError

PATIENCE_SHARE = 0.001
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")


class Patience:
    """Say when the hypervolume has stopped growing.

    Growth is counted from the last value that was worth waiting for, so that many small steps count together.

    Args:
        n_trials: Settled trials, complete or halted at a rung, without enough growth before the search ends;
            >= 1.
        share: Growth that is enough, as a share of the hypervolume it is measured from; >= 0.
    Raises:
        ConfigurationError: If a value is out of its range.
    """

    def __init__(self, n_trials: int, share: float = PATIENCE_SHARE) -> None:
        if n_trials < 1:
            raise ConfigurationError(f"patience must be at least 1 trial, got {n_trials}; try --patience 20")
        if not (share >= 0 and math.isfinite(share)):
            raise ConfigurationError(
                f"patience share must be at least 0 and finite, got {share}; 0.001 is a growth of 0.1%"
            )
        self.n_trials, self.share = n_trials, share
        self._n_waited = 0
        self._base = 0.0

    def settled(self, hypervolume: float) -> bool:
        """Take the hypervolume after one more settled trial.

        Returns:
            Whether the search has waited long enough. While the hypervolume is 0 it never has: nothing has
            been found yet that a growth could be measured from.
        """
        if hypervolume > self._base * (1 + self.share):
            self._base, self._n_waited = hypervolume, 0
        elif self._base > 0:
            self._n_waited += 1
        return self._n_waited >= self.n_trials

    @property
    def reason(self) -> str:
        """What a user is told when the search has waited long enough."""
        return (
            f"the hypervolume grew by no more than {self.share:.3g} of itself "
            f"over the last {self.n_trials} settled trials"
        )


def parse_duration(text: str) -> float:
    """Return the seconds, > 0, that a text such as "90", "90s", "15m" or "2h" stands for.

    Raises:
        ConfigurationError: If it is not of that form, or no time at all.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ConfigurationError(
            f"expected a time above 0 in seconds, minutes or hours, got {text!r}; try 90, 15m or 2h"
        )
    return seconds

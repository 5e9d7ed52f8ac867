"""What a coalition of channels is worth, computed as fast as the network's structure allows."""

from dirprune.importance.coalitions.opening import Opener, open_values
from dirprune.importance.coalitions.values import VALUES, Coalitions, CoalitionValues

__all__ = ["VALUES", "CoalitionValues", "Coalitions", "Opener", "open_values"]

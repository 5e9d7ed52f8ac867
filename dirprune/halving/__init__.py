"""Asynchronous successive halving on the Pareto front: which trials go on at a rung. Pure logic, no Ray."""

from dirprune.halving.promoting import PromotingHalving
from dirprune.halving.stopping import StoppingHalving

__all__ = ["PromotingHalving", "StoppingHalving"]

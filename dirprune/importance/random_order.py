"""Random scores: the floor that every method has to beat."""

from __future__ import annotations

import hashlib

import torch

from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.channels import own_weights
from dirprune.importance.registry import register


@register(
    "random",
    "a random order: what any method must beat",
    cost="nothing to speak of: the weights are read once, and images until all channels were seen alive",
    needs_data=False,
    needs_gradients=False,
    stochastic=True,
)
class RandomOrder(Scorer):
    """Scores each channel by a seeded hash of its own weights.

    The score belongs to the channel and not to its index, so that it follows the channel when channels are
    reordered, here or in the layer before: the hash takes each channel's weights in sorted order. Channels
    with the same weights are tied.
    """

    def score(self, context: ScoringContext) -> Scores:
        """Return scores that are uniform in [0, 1), each of shape (n_channels,)."""
        scores: Scores = {}
        for group in context.grouping.groups:
            hashes = [
                hashlib.sha256(f"{context.seed}/{group.name}".encode()) for _ in range(group.n_channels)
            ]
            for channel_of, rows in own_weights(context.network, group):
                ordered = rows.double().sort(dim=1).values.cpu().numpy()
                for channel, row in zip(channel_of.tolist(), ordered, strict=True):
                    if channel >= 0:
                        hashes[channel].update(row.tobytes())
            numbers = [int.from_bytes(h.digest()[:6], "big") / 2**48 for h in hashes]
            scores[group.name] = torch.tensor(numbers, dtype=torch.float64)
        return scores

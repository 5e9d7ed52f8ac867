"""Coalition values by masking the whole network: slow, right for any network, the measure of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dirprune.device import SHORTAGE_ERRORS, exact_products, is_out_of_memory
from dirprune.importance.base import ScoringContext
from dirprune.importance.coalitions.judge import Judge, are_classes
from dirprune.importance.coalitions.values import Coalitions, CoalitionValues
from dirprune.importance.fresh_norm import find_fresh_norms, tell_no_statistics
from dirprune.importance.parts import Shortage, tell_shortage
from dirprune.switches import mask, switched


class MaskedValues(CoalitionValues):
    """Runs the whole network on every example for every coalition, one coalition in a pass.

    Args:
        context: The network must be in evaluation mode.
        group: Name of the channel group.
        kept: Channels to which other groups are cut already; groups that are not named are whole.
        judge: From outputs to values; minus the mean loss by default.
        batch_size: Examples in a pass; >= 1. Fewer where memory runs out, unless batch norm takes statistics
            from them.
    """

    def __init__(
        self,
        context: ScoringContext,
        group: str,
        kept: Mapping[str, Sequence[int]] | None = None,
        judge: Judge | None = None,
        batch_size: int = 500,
    ) -> None:
        self.context = context
        self.group = group
        self.n_channels = context.grouping[group].n_channels
        self.others = mask(context.grouping, {name: k for name, k in (kept or {}).items() if name != group})
        self.judge = judge or Judge(context.task, "loss")
        self.batch_size = batch_size
        self.shortage = Shortage()

    @torch.no_grad()
    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        while True:
            try:
                return self._go_through(torch.from_numpy(coalitions))
            except SHORTAGE_ERRORS as error:
                if not is_out_of_memory(error):
                    raise
                if norms := find_fresh_norms(self.context.network):
                    n_examples = min(self.batch_size, len(self.context.calibration))
                    raise tell_no_statistics(f"coalitions of {self.group}", n_examples, norms) from error
                if self.batch_size == 1:
                    raise tell_shortage(f"coalitions of {self.group}") from error
                self.batch_size //= 2
                self.shortage.halve_(f"coalitions of {self.group}")

    def _go_through(self, coalitions: Tensor) -> NDArray[np.float64]:
        totals = torch.zeros(len(coalitions), dtype=torch.float64, device=self.context.device)
        for inputs, targets in self.context.batches(self.batch_size):
            is_plain = are_classes(targets)
            for row, coalition in enumerate(coalitions):
                outputs = self.compute_outputs(inputs.clone(), coalition.unsqueeze(0))
                totals[row] += self.judge.sum_up_(outputs, targets, is_plain)[0]
        return (totals / len(self.context.calibration)).cpu().numpy()

    @torch.no_grad()
    def compute_outputs(self, inputs: Tensor, coalitions: Tensor) -> Tensor:
        """Return the outputs of all coalitions on all inputs, shape (n_coalitions, n, ...)."""
        network, grouping = self.context.network, self.context.grouping
        others = {name: factors.to(inputs) for name, factors in self.others.items()}
        outputs = []
        for coalition in coalitions.to(inputs):
            with (
                switched(network, grouping, {**others, self.group: coalition}),
                exact_products(self.context.device),
            ):
                parts = [network(part) for part in inputs.split(self.batch_size)]
            outputs.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        return torch.stack(outputs)

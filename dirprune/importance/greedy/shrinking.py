"""A network on its way to fewer channels, and the curvature of its loss wherever it has come to."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dirprune.device import SHORTAGE_ERRORS, derivatives_off_device, is_out_of_memory, read_free_memory
from dirprune.errors import ImportanceError
from dirprune.groups import narrow
from dirprune.importance.base import Kept, ScoringContext
from dirprune.importance.footprint import allow
from dirprune.importance.fresh_norm import (
    count_in_part,
    find_fresh_norms,
    tell_no_statistics,
    with_fresh_norms,
)
from dirprune.importance.greedy.quadratic import Quadratic
from dirprune.importance.lines import CheckedLines
from dirprune.surgery import compact
from dirprune.switches import switched
from dirprune.tasks import make_task

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

TEMPERATURE = 8.0
"""Of the softmax whose divergence counts, as in distillation (Hinton, Vinyals, Dean 2015, section 2). At 1
the outputs for images that a network is sure of, most of those that it has learned from, hardly move whatever
is cut, and the few others decide."""
N_PROBES = 2
N_SWEEPS = 10
WHAT = "the curvature"
OUTPUTS = "outputs of the dense network"
ELSEWHERE = (
    "out of memory on %s: what derivatives need is kept in the machine's own memory, which takes longer"
)
N_PARTS = 2
"""Parts of about 250 examples that each look is at; the next look is at the parts behind."""


class Shrinking:
    """Cuts a network again and again, for good: with every cut it becomes faster.

    A look gives, to second order and for all groups at once, how far the outputs move away from those of the
    dense network, judged by the same statistics, when channels are removed: that has no slope at first,
    unlike the loss, whose slope on few images is mostly noise. For classifiers it is the Kullback-Leibler
    divergence at `TEMPERATURE`, times its square, for other tasks the mean squared distance. The curvature is
    the generalized Gauss-Newton matrix, of which `N_PROBES` random directions in the space of outputs give an
    unbiased estimate (Martens 2020, JMLR 21, sections 8 and 9).

    Args:
        context: The dense network and the images; left as they are.
        is_recalibrated: Whether batch norm takes the statistics of the examples at hand.
        lines: Where cuts are kept, and found again after an interruption; None: nowhere.

    Attributes:
        kept: The dense network's channels that are left in each group.
        loss: The mean loss that the last look found: as much above the dense network's on all images as on
            those at hand.
        notes: What was said of each cut that was found in `lines`, in their order; they are made already.
    """

    loss = float("nan")

    def __init__(
        self, context: ScoringContext, is_recalibrated: bool, lines: CheckedLines | None = None
    ) -> None:
        self.context = context
        self.is_recalibrated = is_recalibrated
        self.kept: Kept = {group.name: list(range(group.n_channels)) for group in context.grouping.groups}
        self._rng = torch.Generator()
        self._n_looks = 0
        self._size = count_in_part(len(context.calibration))
        self._is_classifier = context.task.loss_identity == make_task("cross_entropy").loss_identity
        self._norms = find_fresh_norms(self._judge().network)
        self._is_divisible = not self._norms
        self._shortage = allow(context, self._size, is_differentiated=self._is_divisible)
        self._is_kept_elsewhere = False
        self._dense_losses: list[float] = []  # summed, of each part
        self._reference = self._predict()
        self._lines = lines
        self.notes = [] if lines is None else self._go_on(lines.read())

    def _go_on(self, records: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Come to where the last of the cuts led; return their notes."""
        made: list[Mapping[str, Any]] = []
        for record in records:
            if record["looks"] == len(made) + 1:  # two processes at once write the same ones
                made.append(record)
        if made:
            self._n_looks = len(made)
            self._leave(made[-1]["kept"])
        return [record["note"] for record in made]

    def _judge(self) -> ScoringContext:
        """Return the context with the statistics by which the network is judged."""
        return with_fresh_norms(self.context, are_all=self.is_recalibrated)

    def look(self) -> Quadratic:
        """Return what removing channels costs from here, in the order of groups and of what is left.

        Where memory is short, fewer examples are taken at once, which changes nothing but rounding. Those
        from which batch norm takes its statistics stay together: with fewer, the cuts would be others.

        Raises:
            ImportanceError: If there is not enough memory even so, or something is not finite.
        """
        judged = self._judge()
        n_examples = len(judged.calibration)
        n_parts = -(-n_examples // self._size)
        n_now = min(N_PARTS, n_parts)
        self._rng.manual_seed(self._n_looks)  # nothing else than images, weights and cuts may matter
        gradients, rows, loss, dense_loss, n_seen = [], [], 0.0, 0.0, 0
        for part in range(self._n_looks * n_now, (self._n_looks + 1) * n_now):
            start = part % n_parts * self._size
            positions = torch.arange(start, min(start + self._size, n_examples))
            differentiate = partial(self._differentiate, judged, positions, self._rng.get_state())
            found = self._compute(torch.arange(len(positions)), differentiate)
            for summed, gradient, factors in found:
                gradients.append(gradient)
                rows.append(factors)
                loss += summed
            n_seen += len(positions)
            dense_loss += self._dense_losses[part % n_parts]
        self._n_looks += 1
        self.loss = sum(self._dense_losses) / n_examples + (loss - dense_loss) / n_seen
        mean = torch.stack(gradients).sum(0).double() / n_seen
        factors = torch.cat(rows)
        _check_finite("loss and derivatives", torch.tensor(self.loss), mean, factors)
        sizes = [len(channels) for channels in self.kept.values()]
        groups = np.repeat(np.arange(len(sizes)), sizes)
        return Quadratic(mean.cpu().numpy(), factors.cpu().numpy(), groups)

    def cut(self, is_removed: NDArray[np.bool_], note: Any = None) -> None:
        """Remove channels for good; there is one cut for each look.

        Args:
            is_removed: As the last look's channels, bool.
            note: Plain data that is kept with the cut.
        """
        staying: Kept = {}
        start = 0
        for name, channels in self.kept.items():
            removed = is_removed[start : start + len(channels)]
            start += len(channels)
            staying[name] = np.flatnonzero(~removed).tolist()
        self._leave(staying)
        if self._lines is not None:
            self._lines.append({"looks": self._n_looks, "kept": self.kept, "note": note})

    def _leave(self, staying: Kept) -> None:
        """Cut the network to some of the channels that are left, given by their places."""
        self.kept = {
            name: [channels[place] for place in staying[name]] for name, channels in self.kept.items()
        }
        context = self.context
        example, _ = context.load(slice(0, 2))
        smaller = compact(context.network, context.grouping, staying, example).eval()
        self.context = dataclasses.replace(
            context, network=smaller, grouping=narrow(context.grouping, staying)
        )

    @torch.no_grad()
    def _predict(self) -> Tensor:
        """Return the dense network's outputs on all examples, shape (n, ...), or its soft probabilities.

        They leave the device, which has to hold the outputs of the examples at hand only.
        """
        judged = self._judge()

        def run(positions: Tensor) -> tuple[Tensor, float]:
            inputs, targets = judged.load(positions)
            outputs = judged.network(inputs)
            self._is_classifier &= outputs.dim() == 2
            _check_finite(OUTPUTS, outputs)
            loss = float(judged.task.summed_loss(outputs, targets))
            return (outputs / TEMPERATURE).softmax(1) if self._is_classifier else outputs, loss

        found: list[Tensor] = []
        n_examples = len(judged.calibration)
        for positions in torch.arange(n_examples).split(self._size):
            parts = self._compute(positions, run)
            found += [part.cpu() for part, _ in parts]
            self._dense_losses.append(sum(loss for _, loss in parts))
            if self.context.progress is not None and n_examples > self._size:
                self.context.progress(OUTPUTS, int(positions[-1]) + 1, n_examples)
        return torch.cat(found)

    def _compute(self, positions: Tensor, compute: Callable[[Tensor], Result]) -> list[Result]:
        """Return what a function gives on examples: as many at once as memory allows, or all together.

        They stay together where batch norm takes statistics from them. Where memory of a GPU runs out on all
        together, what is saved for derivatives leaves it from then on, as far as the machine has room.

        Raises:
            ImportanceError: If there is not enough memory even so.
        """
        if self._is_divisible:
            return self._shortage.compute_in_parts(positions, compute, WHAT)
        while True:
            is_last = self._is_kept_elsewhere or not _has_own_memory(self.context.device)
            away = derivatives_off_device(read_free_memory()) if self._is_kept_elsewhere else nullcontext()
            try:
                with away:
                    return [compute(positions)]
            except SHORTAGE_ERRORS as error:
                if not is_out_of_memory(error):
                    raise
                if is_last:
                    raise tell_no_statistics(WHAT, len(positions), self._norms) from error
            self._is_kept_elsewhere = True
            if ELSEWHERE not in self.context.said:
                logger.warning(ELSEWHERE, WHAT)
            self.context.said.add(ELSEWHERE)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _differentiate(
        self, judged: ScoringContext, positions: Tensor, drawn: Tensor, places: Tensor
    ) -> tuple[float, Tensor, Tensor]:
        """Return summed loss, summed gradient (n_channels,) and curvature's rows on some examples.

        Args:
            judged: The network and its statistics.
            positions: Of the examples that belong together in the calibration split, shape (n,).
            drawn: State of the generator before the directions of all of them.
            places: Of the examples to look at among those.
        """
        inputs, targets = judged.load(positions[places])
        with torch.enable_grad():
            switches = {
                name: torch.ones(len(inputs), len(channels), device=inputs.device, requires_grad=True)
                for name, channels in self.kept.items()
            }
            with switched(judged.network, judged.grouping, switches):
                outputs = judged.network(inputs)
        _check_finite("outputs", outputs)
        loss = float(judged.task.summed_loss(outputs.detach(), targets))
        self._rng.set_state(drawn)
        reference = self._reference[positions[places]].to(outputs.device)
        slope, *probes = self._find_directions(outputs.detach(), reference, places, len(positions))
        pulled = [_pull_back(outputs, direction, switches) for direction in (slope, *probes)]
        return loss, pulled[0].sum(0), torch.cat(pulled[1:])

    def _find_directions(
        self, outputs: Tensor, reference: Tensor, places: Tensor, n_examples: int
    ) -> list[Tensor]:
        """Return the slope of the distance from the reference, then random factors of its curvature.

        They are drawn for all `n_examples` that belong together, of which `places` are at hand.
        """
        if self._is_classifier:
            predicted = (outputs / TEMPERATURE).softmax(1)
            odds = torch.ones(n_examples, predicted.shape[1], dtype=predicted.dtype)
            odds[places] = predicted.cpu()
            labels = torch.multinomial(odds, N_PROBES, replacement=True, generator=self._rng)[places]
            chosen = F.one_hot(labels.T.to(outputs.device), predicted.shape[1])
            return [TEMPERATURE * (predicted - reference), *(predicted - chosen)]
        n_outputs = outputs[0].numel()
        signs = torch.randint(0, 2, (N_PROBES, n_examples, *outputs.shape[1:]), generator=self._rng)
        directions = (signs[:, places].to(outputs) * 2 - 1) * (2 / n_outputs) ** 0.5
        return [2 * (outputs - reference) / n_outputs, *directions]


def _has_own_memory(device: str | torch.device) -> bool:
    """Whether what leaves a device gives it room."""
    return torch.device(device).type != "cpu"


def _check_finite(what: str, *tensors: Tensor) -> None:
    """Refuse numbers from which no curvature follows.

    Raises:
        ImportanceError: If one is not finite.
    """
    for tensor in tensors:
        is_finite = tensor.isfinite()
        if not is_finite.all():
            raise ImportanceError(
                f"{WHAT} needs finite {what}, got {float(tensor[~is_finite][0])}; "
                "look for NaN in weights and calibration inputs"
            )


def _pull_back(outputs: Tensor, direction: Tensor, switches: Mapping[str, Tensor]) -> Tensor:
    """Return derivatives of outputs . direction with respect to all switches, shape (n, n_channels)."""
    found = torch.autograd.grad(
        outputs, list(switches.values()), direction, retain_graph=True, materialize_grads=True
    )
    return torch.cat(found, dim=1)


def shrink(
    context: ScoringContext,
    architecture: Mapping[str, int],
    n_rounds: int,
    is_recalibrated: bool,
    lines: CheckedLines | None = None,
) -> Kept:
    """Choose the channels of an architecture, to which all groups are cut in equal steps.

    In each round the network is looked at, the channels that cost least given all that are gone are removed
    in the order of their costs, and exchanged with others of their groups as long as that gains.

    Returns:
        The kept channels of every group, sorted.
    """
    shrinking = Shrinking(context, is_recalibrated, lines)
    n_done = max(shrinking.notes, default=0)
    full = context.grouping.n_channels
    for number in range(n_done + 1, n_rounds + 1):
        wanted = [n - round((n - architecture[name]) * number / n_rounds) for name, n in full.items()]
        quotas = np.array([len(c) for c in shrinking.kept.values()]) - np.array(wanted)
        if quotas.any():
            estimate = shrinking.look()
            estimate.remove_cheapest(quotas)
            estimate.exchange(N_SWEEPS)
            shrinking.cut(estimate.is_removed, note=number)
        if context.progress is not None:
            context.progress("greedy", number, n_rounds)
    return shrinking.kept

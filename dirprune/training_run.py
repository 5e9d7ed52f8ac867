"""One training under way: its steps, its reports, its state, alone or with other workers.

The order of the batches depends on the seed and the epoch alone, so that a state needs no generators for it.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from dirprune.augmentation import Draws, augment
from dirprune.data.read_ahead import ReadAhead
from dirprune.data.roles import DataRoles
from dirprune.data.split import Batch
from dirprune.data.streaming import StreamedSplit
from dirprune.data.views import RandomCrops
from dirprune.device import SHORTAGE_ERRORS, is_out_of_memory
from dirprune.errors import ConfigurationError, TrainingDiverged, one_line, suggest
from dirprune.evaluation import evaluate
from dirprune.layers import is_refused_alone
from dirprune.optimizers import make_optimizer
from dirprune.order import derive_seed, draw_order
from dirprune.parallel import Crew, Job, MemoryShortage, Share, norms_synchronised, spread_out
from dirprune.recipe import Recipe
from dirprune.replay import Replay
from dirprune.tasks import Task
from dirprune.training_state import Segment, TrainingState, describe_segment, to_cpu

logger = logging.getLogger("dirprune.training")

STEPS_PER_CHECK = 20  # reading the loss waits for the device, so divergence is looked for in every 20th step
BATCH_OF_TEACHER = 256
MAX_TAUGHT = 2**25  # numbers that a teacher says of all training images: 128 MiB


@dataclass(frozen=True)
class TrainingReport:
    """What a training says at an epoch's end, at a stop, and at its end.

    Args:
        images: Training images seen.
        metrics: `val_loss` and `val_<metric>`; once anything was trained also `train_loss` (mean since the
            last report, with distillation), `lr` and `images_per_s` (training only, without evaluation).
        is_last: Whether this is the last report. With patience its metrics are those of the best weights,
            which the network then has.
        capture: Gives the state at this report; to be called before the next report is asked for.
        is_pause: Whether this is no report but a place between two of them, without metrics, where the state
            can be captured.
    """

    images: int
    metrics: dict[str, float]
    is_last: bool
    capture: Callable[[], TrainingState]
    is_pause: bool = False


class TrainingRun:
    """One training under way."""

    def __init__(
        self,
        network: nn.Module,
        roles: DataRoles,
        task: Task,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        teacher: nn.Module | None,
    ) -> None:
        if recipe.distillation > 0 and teacher is None:
            raise ConfigurationError(
                f"distillation {recipe.distillation:g} needs a teacher; 0 trains without one"
            )
        if len(roles.train) == 0:
            raise ConfigurationError("expected training images, got an empty train role")
        self.network, self.roles, self.task, self.recipe = network, roles, task, recipe
        self.seed, self.device = seed, device
        self.teacher: nn.Module | None = None
        if teacher is not None and recipe.distillation > 0:
            layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
            self.teacher = copy.deepcopy(teacher).to(device).to(memory_format=layout)
            self.teacher.eval().requires_grad_(False)
        self.optimizer = make_optimizer(network, recipe)
        self.is_bfloat16 = recipe.precision == "bfloat16" or (
            recipe.precision == "auto"
            and device.type == "cuda"
            and torch.cuda.is_bf16_supported(including_emulation=False)  # which is slower than float32
        )
        self.best: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}
        self.segment: Segment | None = None
        self.n_parts = 1
        self.crew: Crew | None = None
        self.share = Share()
        self.ahead = ReadAhead()
        self.learning = network
        self.replay = Replay(network, device)

    def lead_(
        self,
        crew: Crew,
        state: TrainingState | None,
        note_shortage: Callable[[], None],
        together: ExitStack,
    ) -> None:
        """Train with others from here on, until `together` is closed."""
        teacher = None if self.teacher is None else copy.deepcopy(self.teacher).cpu()
        network = copy.deepcopy(self.network).cpu()
        job = Job(network, self.recipe, self.seed, teacher, state, self.n_parts > 1)
        wait = crew.begin(job, note_shortage)
        try:
            self.spread_out_(Share(0, crew.n_workers), together)
            wait()
        except RuntimeError as error:
            raise crew.explain(error) from error
        self.crew = crew

    def spread_out_(self, share: Share, together: ExitStack) -> None:
        """Compute one part of each batch, as others compute theirs."""
        self.share = share
        with closing(self.roles.train.batches([torch.arange(min(2, len(self.roles.train)))])) as batches:
            batch = next(batches)
        self.learning = spread_out(
            self.network,
            lambda probe: self.task.summed_loss(probe(self.roles.normalise(batch.inputs)), batch.targets),
        )
        together.enter_context(norms_synchronised(self.network))

    def _teach(self, inputs: torch.Tensor) -> torch.Tensor:
        assert self.teacher is not None
        with torch.no_grad():
            return self.teacher(inputs)

    @cached_property
    def _buffers(self) -> list[tuple[list[torch.Tensor], list[torch.Tensor]]]:
        """Return the network's buffers, batch norm's statistics say, by type, and room for what they were."""
        by_type: dict[torch.dtype, list[torch.Tensor]] = {}
        for buffer in self.network.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        return [(buffers, [torch.empty_like(each) for each in buffers]) for buffers in by_type.values()]

    @cached_property
    def _taught(self) -> torch.Tensor | None:
        """Return the teacher's outputs on all training images, where they are the same in every pass.

        None where they are not, where less than a pass is trained, or where they would take too much memory.
        """
        train = self.roles.train
        if self.teacher is None or self.recipe.augments or self.recipe.images < len(train):
            return None
        plan = torch.arange(len(train)).split(BATCH_OF_TEACHER)
        taught: torch.Tensor | None = None
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bfloat16),
            closing(train.batches(plan)) as batches,
        ):
            for batch in batches:
                outputs = self._teach(self.roles.normalise(batch.inputs))
                if outputs.numel() * len(plan) > MAX_TAUGHT:
                    return None
                if taught is None:
                    taught = outputs.new_zeros(len(train), *outputs.shape[1:])
                taught[batch.places] = outputs
        return taught

    @property
    def is_exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self.recipe.patience is not None and self.best.get("n_worse", 0) >= self.recipe.patience

    def restore_(self, state: TrainingState) -> None:
        """Take over a state."""
        if state.images > self.recipe.images:
            raise ConfigurationError(
                f"expected a state of at most {self.recipe.images} training images, got one of {state.images}"
            )
        self.network.load_state_dict(state.model)
        self.optimizer.load_state_dict(copy.deepcopy(state.optimizer))
        self.best = copy.deepcopy(state.best)
        self.metrics = dict(state.metrics)
        self.segment = Segment(**copy.deepcopy(state.segment)) if state.segment else None

    def advance_(self, segment: Segment, wants_pause: Callable[[], bool]) -> bool:
        """Train until a pause is wanted or the segment ends; return whether it has ended."""
        if self.crew is None:
            return self.take_steps_(segment, wants_pause)
        while True:
            until = segment.step + STEPS_PER_CHECK
            try:
                wait = self.crew.advance(segment.for_peers(self.crew.n_workers - 1), until)
                has_ended = self.take_steps_(segment, wants_pause=lambda: False, until=until)
                parts = wait()
            except MemoryShortage:
                self.crew.give_up()
            except RuntimeError as error:
                raise self.crew.explain(error) from error
            segment.summed += sum(part.summed for part in parts)
            segment.peers = [part.randomness for part in parts]
            if isinstance(self.roles.train, StreamedSplit):
                for part in parts:
                    self.roles.train.index.broken.update(part.unreadable)
            if not math.isfinite(segment.summed):
                raise self._diverged("the training loss", self._edges(segment)[segment.step])
            if has_ended or wants_pause():
                return has_ended

    def take_steps_(
        self, segment: Segment, wants_pause: Callable[[], bool], until: int | None = None
    ) -> bool:
        """Do so with this worker's part of each batch, up to a step if there is one."""
        began = time.perf_counter()
        self.segment = segment
        self.network.train()
        n_epoch = len(self.roles.train)
        first = segment.start - segment.start % n_epoch
        epoch = segment.start // n_epoch
        order = draw_order(self.seed, epoch, n_epoch)
        edges = self._edges(segment)
        n_steps = len(edges) - 1
        left = list(itertools.pairwise(edges))[segment.step :]
        steps = left if until is None else left[: until - segment.step]
        crops = None
        if self.recipe.min_area < 1:
            crops = RandomCrops(self.recipe.min_area, derive_seed("crops", self.seed, epoch))

        def places_of(step: tuple[int, int]) -> torch.Tensor:
            low, high = (place - first for place in step)
            if high - low == 1 < self.recipe.batch_size:  # batch norm cannot learn from an image alone
                low = max(low - 1, 0)
                high = low + 2
            return order[low:high]

        def read() -> Generator[Batch, None, None]:
            plan = [places[self.share.of(len(places))[0]] for places in map(places_of, left)]
            return self.roles.train.batches(plan, crops)

        summed = torch.tensor(segment.summed, dtype=torch.float64, device=self.device)
        whose = [self.share.rank] if self.share.rank > 0 else []
        seed = derive_seed("network", self.seed, segment.start, *whose)
        augmentation_seed = derive_seed("augmentation", self.seed, segment.start)
        with (
            segment.drawing(seed, augmentation_seed, self.device) as generator,
            self.ahead.going_on(lambda: (segment.start, segment.stop, segment.step), read) as batches,
        ):
            for (low, high), batch in zip(steps, itertools.islice(batches, len(steps)), strict=True):
                summed += self._step_(batch, places_of((low, high)), low, generator) * (high - low)
                segment.step += 1
                is_checked = segment.step % STEPS_PER_CHECK == 0 or segment.step == n_steps
                if is_checked and self.share.rank == 0 and not math.isfinite(float(summed)):
                    raise self._diverged("the training loss", high)
                if segment.step < n_steps and wants_pause():
                    break
        has_ended = segment.step == n_steps
        if has_ended:
            self.ahead.close()
        segment.summed = float(summed)
        segment.seconds += time.perf_counter() - began
        return has_ended

    def sum_up_(self, segment: Segment) -> dict[str, float]:
        """Return the metrics of a segment that has ended, and leave it behind."""
        self.segment = None
        n_images = segment.stop - segment.start
        lr = self.recipe.lr_at(self._edges(segment)[-2])
        return {"train_loss": segment.summed / n_images, "lr": lr, "images_per_s": n_images / segment.seconds}

    def _edges(self, segment: Segment) -> list[int]:
        """Return the training images seen before each step of a segment, and at its end."""
        n_images = segment.stop - segment.start
        n_steps = math.ceil(n_images / self.recipe.batch_size)
        return [segment.start + n_images * step // n_steps for step in range(n_steps + 1)]

    def _step_(
        self, batch: Batch, whole: torch.Tensor, images: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Take one step; return this worker's part of the mean loss, detached.

        Args:
            batch: What could be read of this worker's part.
            whole: Places of the images that all workers should have, shape (n,).
            images: Training images seen before.
            generator: Of the augmentation.
        """
        n_images: float = self.share.of(len(whole))[1]
        if not self.recipe.augmentation.is_none:
            draws = Draws(generator, len(whole), self._find_own(batch, whole))
            batch = replace(batch, inputs=augment(batch.inputs, self.recipe.augmentation, draws))
        if self.share.n_workers == 1:
            n_images = len(batch.places)
        elif len(batch.places) == 0:  # the others wait for this worker's gradients, which are of no weight
            batch, n_images = self._find_readable(whole), math.inf
        n_least = min(2, len(whole)) if self.share.n_workers == 1 else 1
        if len(batch.places) < n_least:  # none of them can be read, by any worker, or one alone
            return torch.zeros((), device=self.device)
        if self.n_parts == 1 and self.share.n_workers == 1:
            for buffers, before in self._buffers:
                torch._foreach_copy_(before, buffers)
        loss = self._add_gradients_(batch, n_images)
        if loss is None and self.n_parts == 1:
            if self.share.n_workers > 1:
                raise MemoryShortage
            for buffers, before in self._buffers:  # batch norms have seen images that they are to see again
                torch._foreach_copy_(buffers, before)
            self.n_parts = 2
            self.replay.stop_()
            logger.warning("out of memory: batches of %d images in two halves from now on", len(whole))
            loss = self._add_gradients_(batch, n_images)
        if loss is None:
            raise ConfigurationError(
                f"expected memory for {math.ceil(len(batch.places) / self.n_parts)} images at once, "
                "a part of a batch, got out of memory; "
                f"try a batch size below {len(whole)}"
            )
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(images)
        self.optimizer.step()
        return loss

    def _find_own(self, batch: Batch, whole: torch.Tensor) -> torch.Tensor | None:
        """Return where the images of this worker's part lie in the whole batch; None: they are all of it."""
        part = self.share.of(len(whole))[0]
        own = torch.arange(len(whole))[part]
        if len(batch.places) != len(own):  # some cannot be read
            own = own[torch.isin(whole[part], batch.places.cpu())]
        return None if len(own) == len(whole) else own

    def _find_readable(self, places: torch.Tensor) -> Batch:
        """Return one of some training images that can be read, or none."""
        with closing(self.roles.train.batches([places])) as batches:
            batch = next(batches)
        return Batch(batch.inputs[:1], batch.targets[:1], batch.places[:1])

    def _add_gradients_(self, batch: Batch, n_images: float) -> torch.Tensor | None:
        """Compute the gradients of a batch's mean loss, part by part, and return that loss, detached.

        Args:
            batch: Its inputs augmented, as they are stored.
            n_images: Images of the whole batch, of which other workers may have some; infinite: these are of
                no weight.

        Returns:
            None if memory ran out.
        Raises:
            ConfigurationError: If batch norm refuses a batch of one.
        """
        try:
            if self.n_parts == 1 and self.share.n_workers == 1:
                inputs = self.roles.normalise(batch.inputs)
                return self.replay.set_gradients_(self._loss, inputs, batch.targets, batch.places)
            return self._add_gradients_of_parts_(batch, n_images)
        except SHORTAGE_ERRORS as error:
            if not is_out_of_memory(error):
                raise
            return None
        except ValueError as error:
            if not is_refused_alone(error):
                raise
            raise ConfigurationError(
                f"expected images enough for batch norm, got one at a time ({one_line(error)}); "
                "try a batch size of 4 or more"
            ) from error

    def _add_gradients_of_parts_(self, batch: Batch, n_images: float) -> torch.Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        n_at_once = math.ceil(len(batch.places) / self.n_parts)
        tensors = (batch.inputs, batch.targets, batch.places)
        parts = [(*part, len(part[0])) for part in zip(*(t.split(n_at_once) for t in tensors), strict=True)]
        if self.share.n_workers > 1:  # each backward pass waits for those of the others: all make as many
            parts += [(*(t[:1] for t in tensors), 0)] * (self.n_parts - len(parts))
        for inputs, targets, places, n_counted in parts:
            normalised = self.roles.normalise(inputs)
            loss = self._loss(normalised, targets, places) * (n_counted / n_images)
            (loss * self.share.n_workers).backward()  # the mean over the workers is taken of it
            total = total + loss.detach()
        return total

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of some training images, normalised, with the teacher's part."""
        weight = self.recipe.distillation
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bfloat16):
            outputs = self.learning(inputs)
            loss = (1 - weight) * self.task.smoothed_loss(outputs, targets, self.recipe.label_smoothing)
            if self.teacher is not None:
                taught = self._teach(inputs) if self._taught is None else self._taught[places]
                loss = loss + weight * self.task.distil(outputs, taught, self.recipe.temperature)
        return loss

    def evaluate_(self, images: int, trained: dict[str, float]) -> TrainingReport:
        """Evaluate, keep the best weights (at the end give them to the network), and make the report."""
        evaluated = evaluate(self.network, self.roles.validation, self.roles, self.task, self.device)
        for name, value in evaluated.items():
            if not math.isfinite(value):
                raise self._diverged(name, images)
        if self.recipe.patience is not None:
            self._keep_best(evaluated)
        is_last = images >= self.recipe.images or self.is_exhausted
        if is_last and self.best:
            self.network.load_state_dict(self.best["model"])
            evaluated = self.best["metrics"]
        return self.report(images, {**trained, **evaluated}, is_last=is_last)

    def report(self, images: int, metrics: dict[str, float], *, is_last: bool) -> TrainingReport:
        """Make a report whose `capture` takes the state as it is when called."""
        self.metrics = dict(metrics)
        return TrainingReport(images, dict(metrics), is_last, lambda: self._capture(images, is_last))

    def pause(self, segment: Segment) -> TrainingReport:
        """Make what stands between two reports."""
        images = self._edges(segment)[segment.step]
        return TrainingReport(images, {}, False, lambda: self._capture(images, False), is_pause=True)

    def _capture(self, images: int, is_last: bool) -> TrainingState:
        return TrainingState(
            images,
            to_cpu(self.network.state_dict()),
            to_cpu(self.optimizer.state_dict()),
            copy.deepcopy(self.best),
            dict(self.metrics),
            is_last,
            describe_segment(self.segment),
        )

    def _keep_best(self, metrics: dict[str, float]) -> None:
        monitor = self.recipe.monitor
        if monitor not in metrics:
            raise ConfigurationError(f"unknown metric to monitor {monitor!r}{suggest(monitor, metrics)}")
        sign = 1 if self.recipe.monitor_direction == "minimize" else -1
        if not self.best or sign * metrics[monitor] < sign * self.best["value"]:
            model = to_cpu(self.network.state_dict())
            self.best = {"value": metrics[monitor], "model": model, "metrics": dict(metrics), "n_worse": 0}
        else:
            self.best["n_worse"] += 1

    def _diverged(self, what: str, images: int) -> TrainingDiverged:
        lr = self.recipe.lr_at(images)
        return TrainingDiverged(
            f"{what} is not finite after {images} training images at learning rate {lr:.2g} "
            f"(peak {self.recipe.lr:g}); try a lower lr or precision float32"
        )

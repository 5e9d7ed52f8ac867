"""Does a device compute what the CPU computes? What the tests cannot ask on a machine without a GPU.

    python benchmarks/gpu_check.py --device cuda

Scores and coalition values are put beside the CPU's, compact networks beside masked ones, trainings that
were cut off beside whole ones; batches that do not fit into memory get smaller; latencies are measured. The
data is noise, with the classes that a network of random weights gives it. One line for each check as it ends,
exit status 1 if one failed.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import click
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from training_limit import graphs

from dirprune.cli.errors import run_command
from dirprune.cli.subjects import choose_device
from dirprune.data import DataRoles, make_roles
from dirprune.device import exact_products
from dirprune.evaluation import evaluate
from dirprune.groups import Grouping
from dirprune.importance import Scorer, ScoringContext, compute_scores, create, get_method, list_methods
from dirprune.importance.coalitions import open_values
from dirprune.importance.coalitions.judge import Judge
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.latency import measure_latency
from dirprune.networks import create_network
from dirprune.pruning import prune
from dirprune.recipe import Recipe
from dirprune.recipes import CIFAR_FINE_TUNING
from dirprune.surgery import compact
from dirprune.switches import switched
from dirprune.tasks import make_task
from dirprune.tracing import find_groups
from dirprune.training import TrainingState, train_

NETWORKS = ("resnet20", "vgg16")
N_IMAGES = 256
N_COALITIONS = 12
N_GROUPS = 3
"""Groups whose scores are compared, of 16 channels each."""
SAME_ORDER = 0.99
CHEAP = {"evaluations": 80, "steps": 20, "k": 1}
"""Options with which the expensive methods end soon, where they have them."""
SHORT_OF_MEMORY = ("fisher", "dirichlet", "leave-one-out", "greedy-path")
"""One method of each way in which scores get along with less memory."""
SHARES = (0.7, 0.5, 0.35, 0.25, 0.15)
"""Of the memory that scoring takes by itself: less and less, until it runs out."""
TOO_LONG = frozenset({"shapley-exact"})
"""Methods of 2^16 coalitions a group, too many for the CPU; coalitions themselves are checked."""


def make_subject(name: str) -> tuple[nn.Module, DataRoles]:
    """Return a network of random weights and noise with the classes that it gives it."""
    network = create_network(name, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (N_IMAGES + 80, 3, 32, 32), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        outputs = network(images / 255)
    targets = ((outputs - outputs.mean(0)) / outputs.std(0)).argmax(1)
    targets[-80:] = torch.arange(80) % 10
    targets[:80] = torch.arange(80) % 10
    parts = (images[:N_IMAGES], targets[:N_IMAGES], images[N_IMAGES:], targets[N_IMAGES:])
    return network, make_roles("noise", *parts, validation_from="test:0.5", seed=0, n_classes=10)


def make_context(name: str, device: str, n_groups: int | None = None) -> ScoringContext:
    """Return what methods look at: all groups, or the first ones."""
    network, roles = make_subject(name)
    grouping = Grouping(find_groups(network, roles.example_input()).groups[:n_groups])
    return ScoringContext(
        network.to(device), grouping, roles.calibration, roles.normalise, make_task(), seed=0, device=device
    )


def expect(is_right: bool, found: str) -> str:
    """Return what was found, or fail with it."""
    if not is_right:
        raise AssertionError(found)
    return found


def check_coalitions(device: str, name: str) -> str:
    """Coalition values of the first, the middle and the last group, beside whole masked networks."""
    context, cpu = make_context(name, device), make_context(name, "cpu")
    names = context.grouping.names
    worst = {"masking": 0.0, "the CPU": 0.0}
    for group in (names[0], names[len(names) // 2], names[-1]):
        rng = np.random.default_rng(0)
        coalitions = rng.random((N_COALITIONS, context.grouping[group].n_channels)) < 0.6
        with exact_products(device):
            found = open_values(context, group).evaluate(coalitions)
            masked = MaskedValues(context, group, {}, Judge(context.task, "loss")).evaluate(coalitions)
        others = open_values(cpu, group).evaluate(coalitions)
        for whose, values in (("masking", masked), ("the CPU", others)):
            worst[whose] = max(worst[whose], float(np.abs((found - values) / values).max()))
    found_text = ", ".join(f"{difference:.1e} from {whose}" for whose, difference in worst.items())
    return expect(max(worst.values()) < 1e-4, found_text)


def check_method(device: str, name: str, method: str) -> str:
    """Scores of a method, beside the CPU's."""
    known = get_method(method).options
    options = {option: value for option, value in CHEAP.items() if option in known}
    found, others = (
        compute_scores(create(method, options), make_context(name, where, N_GROUPS))
        for where in (device, "cpu")
    )
    orders = [
        float(spearmanr(found[group], others[group]).statistic)
        for group in others
        if others[group].unique().numel() > 1
    ]
    return expect(
        min(orders, default=1.0) > SAME_ORDER,
        f"rank correlation with the CPU's {min(orders, default=1.0):.4f} at least",
    )


def check_surgery(device: str, name: str) -> str:
    """A compact network beside the masked one."""
    context = make_context(name, device)
    inputs, _ = context.load(slice(0, 64))
    rng = np.random.default_rng(0)
    kept, switches = {}, {}
    for group in context.grouping.groups:
        kept[group.name] = sorted(rng.permutation(group.n_channels)[: group.n_channels // 2].tolist())
        switches[group.name] = torch.zeros(group.n_channels, device=device)
        switches[group.name][kept[group.name]] = 1.0
    smaller = compact(context.network, context.grouping, kept, inputs[:2]).eval()
    with torch.no_grad(), exact_products(device):
        found = smaller(inputs)
        with switched(context.network, context.grouping, switches):
            masked = context.network(inputs)
    apart = float((found - masked).norm() / masked.norm())
    return expect(apart < 1e-5, f"outputs apart by {apart:.1e} of their norm")


def check_training(device: str, name: str) -> str:
    """A training that is cut off within an epoch, beside one that is not."""
    network, roles = make_subject(name)
    recipe = replace(CIFAR_FINE_TUNING, images=2 * len(roles.train), batch_size=32)
    whole = copy.deepcopy(network)
    *_, last = train_(whole, roles, make_task(), recipe, seed=0, device=device, teacher=network)
    cut = copy.deepcopy(network)
    state = next(_pauses(cut, network, roles, recipe, device))
    resumed = copy.deepcopy(network)
    *_, end = train_(resumed, roles, make_task(), recipe, seed=0, device=device, teacher=network, state=state)
    moved = measure_distance(whole.cpu(), network.cpu())
    apart = measure_distance(whole, resumed.cpu())
    is_finite = math.isfinite(last.metrics["val_loss"]) and math.isfinite(end.metrics["val_loss"])
    return expect(is_finite and apart < 0.1 * moved, f"apart by {apart / moved:.1e} of the way")


def _pauses(
    network: nn.Module, teacher: nn.Module, roles: DataRoles, recipe: Recipe, device: str
) -> Iterator[TrainingState]:
    asked = itertools.count()
    for report in train_(
        network,
        roles,
        make_task(),
        recipe,
        seed=0,
        device=device,
        teacher=teacher,
        wants_pause=lambda: next(asked) == 3,
    ):
        if report.is_pause:
            yield report.capture()


def check_replay(device: str, name: str) -> str:
    """A training whose steps are replayed, beside one whose steps are asked for one by one."""
    network, roles = make_subject(name)
    recipe = replace(CIFAR_FINE_TUNING, images=20 * len(roles.train), batch_size=60)
    trained: dict[bool, nn.Module] = {}
    with heard("dirprune.training", logging.INFO) as said:
        for is_replayed in (True, False):
            trained[is_replayed] = copy.deepcopy(network)
            with graphs(is_replayed):
                list(
                    train_(
                        trained[is_replayed],
                        roles,
                        make_task(),
                        recipe,
                        seed=0,
                        device=device,
                        teacher=network,
                    )
                )
            trained[is_replayed].cpu()
    moved = measure_distance(trained[False], network.cpu())
    apart = measure_distance(trained[False], trained[True])
    was_replayed = any("are replayed" in line for line in said)
    found = f"apart by {apart / moved:.1e} of the way; {'; '.join(said) or 'nothing was replayed'}"
    return expect(apart < 0.1 * moved and was_replayed == (device != "cpu"), found)


def measure_distance(one: nn.Module, other: nn.Module) -> float:
    """Return the norm of the difference of all weights and statistics."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return math.sqrt(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))


def check_evaluation(device: str, name: str) -> str:
    """Loss and accuracy beside the CPU's."""
    network, roles = make_subject(name)
    here = evaluate(network, roles.validation, roles, make_task())
    there = evaluate(network.to(device), roles.validation, roles, make_task(), device)
    difference = abs(here["val_loss"] - there["val_loss"]) / here["val_loss"]
    return expect(difference < 1e-2, f"loss apart by {difference:.1e}")


def check_memory(device: str, name: str) -> str:
    """A batch that does not fit is computed in halves."""
    if device == "cpu":
        return "not on a CPU"
    network, roles = make_subject(name)
    recipe = replace(CIFAR_FINE_TUNING, images=len(roles.train), batch_size=len(roles.train))

    def train(in_halves: bool) -> tuple[float, int]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        trained = copy.deepcopy(network)
        *_, last = train_(
            trained, roles, make_task(), recipe, seed=0, device=device, teacher=network, in_halves=in_halves
        )
        return last.metrics["val_loss"], torch.cuda.max_memory_reserved(device)

    (_, whole), (wanted, halved) = train(False), train(True)
    between = (whole + halved) / 2 / torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(between, device)
    try:
        found, _ = train(False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    taken = f"{whole / 2**20:.0f} MiB whole, {halved / 2**20:.0f} MiB in halves"
    return expect(abs(found - wanted) < 1e-3, f"{taken}, losses {found:.4f} and {wanted:.4f}")


def check_scoring_memory(device: str, name: str, method: str) -> str:
    """Scores where memory runs out, beside those with all of it."""
    if device == "cpu":
        return "not on a CPU"
    known = get_method(method).options
    options = {option: value for option, value in CHEAP.items() if option in known}

    def score() -> Mapping[str, torch.Tensor]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return compute_scores(create(method, options), make_context(name, device))

    score()  # what libraries keep for themselves is there from now on
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    wanted, peak = score(), torch.cuda.max_memory_reserved(device)
    found, said, share = wanted, "", 1.0
    total = torch.cuda.get_device_properties(device).total_memory
    for share in SHARES:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((before + share * (peak - before)) / total, device)
        try:
            with heard("dirprune.importance", logging.WARNING) as lines:
                found = score()
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        said = "; ".join(lines)
        if said:
            break
    orders = [float(spearmanr(found[group].cpu(), wanted[group].cpu()).statistic) for group in wanted]
    taken = f"{100 * share:.0f}% of {(peak - before) / 2**20:.0f} MiB"
    return expect(
        "out of memory" in said and lines.count(said) == 1 and min(orders) > SAME_ORDER,
        f"rank correlation {min(orders):.4f} at least with {taken}: {said or 'nothing was said'}",
    )


@contextmanager
def heard(name: str, level: int) -> Iterator[list[str]]:
    """Collect what a logger says from a level on."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    was = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(was)


def check_latency(device: str, name: str) -> str:
    """Latency of a dense network and of half of it."""
    network, roles = make_subject(name)
    half = prune(network, roles, architecture=0.5, method="magnitude", device=device).network
    inputs = roles.normalise(roles.calibration.inputs[:128]).to(device)
    dense, smaller = (measure_latency(each.to(device), inputs).median_ms for each in (network, half))
    return expect(dense > 0 and smaller > 0, f"{dense:.2f} ms dense, {smaller:.2f} ms at keep ratio 0.5")


def list_checks() -> Iterator[tuple[str, Callable[[str], str]]]:
    """Yield every check with what it is called."""
    for name in NETWORKS:
        for check in (
            check_evaluation,
            check_surgery,
            check_training,
            check_replay,
            check_memory,
            check_latency,
            check_coalitions,
        ):
            yield (
                f"{check.__name__.removeprefix('check_')} of {name}",
                lambda device, check=check, name=name: check(device, name),
            )
    for method in SHORT_OF_MEMORY:
        yield (
            f"short of memory, {method} of vgg16",
            lambda device, method=method: check_scoring_memory(device, "vgg16", method),
        )
    for method in list_methods():
        if issubclass(get_method(method).factory, Scorer) and method not in TOO_LONG:
            yield (
                f"{method} of resnet20",
                lambda device, method=method: check_method(device, "resnet20", method),
            )


@click.command(context_settings={"show_default": True})
@click.option("--device", default="cuda")
@click.option("--only", default="", help="Checks whose names hold this.")
def main(device: str, only: str) -> None:
    """Run every check and say what came out."""
    if choose_device(device) == "cuda":
        device = f"cuda:{torch.cuda.current_device()}"  # which some of torch's functions insist on
    n_failed = 0
    for name, check in list_checks():
        if only not in name:
            continue
        began = time.monotonic()
        try:
            found, status = check(device), "ok"
        except Exception as error:  # one that fails does not keep the others from being run
            found, status = f"{type(error).__name__}: {error}".splitlines()[0], "FAILED"
            n_failed += 1
        click.echo(f"{status:6}  {name:34} {time.monotonic() - began:6.1f} s  {found}")
    raise SystemExit(1 if n_failed else 0)


if __name__ == "__main__":
    raise SystemExit(run_command(main))

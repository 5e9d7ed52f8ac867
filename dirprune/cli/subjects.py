"""From options to what a command works on: data in their roles, a network, and what it measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from dirprune.cli.options import DataOptions, TrainingOptions
from dirprune.cli.own_network import find_network, load_own_network
from dirprune.cli.printing import ScoringProgress, format_table
from dirprune.cli.training import make_recipe, train_with_progress_
from dirprune.cli.weights import Header, read_header
from dirprune.cost import count_costs
from dirprune.data import DataRoles, load_data
from dirprune.data.roles import FOREIGN_SPLIT, OWN_SPLIT
from dirprune.errors import ClassesError, ConfigurationError, NotGivenError, one_line
from dirprune.evaluation import check_fit, evaluate
from dirprune.groups import Grouping
from dirprune.identity import complete_identity, identify
from dirprune.networks import create_network, is_known, load_weights_, with_classes
from dirprune.records.models import load_model, read_stored, save_model
from dirprune.study.dense import Verdict, judge_cut
from dirprune.tasks import Task, make_task
from dirprune.tracing import find_groups
from dirprune.uncounted import warn_of_uncounted

ORIGIN = "weights"


@dataclass(frozen=True)
class Subject:
    """A network on its device, with the data and the task by which it is judged.

    Attributes:
        made_by: Its name, or the user's own function that makes the dense network.
        header: How the data are cut that it is judged and trained by.
        is_learnt: Whether its weights have probably learnt the images of validation.
    """

    network: nn.Module
    made_by: str | Callable[..., nn.Module]
    header: Header
    roles: DataRoles
    task: Task
    device: str
    seed: int
    is_learnt: bool = False

    @property
    def origin(self) -> Header:
        """How the data are cut of what becomes of the network: so that validation holds nothing learnt."""
        if self.is_learnt:
            return self.header.changed(validation_from=FOREIGN_SPLIT, data_identity="")
        return self.header

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Return accuracy on validation and test, MACs and parameters of a network on this device."""
        example = self.roles.example_input().to(self.device)
        metrics = {
            **evaluate(network, self.roles.validation, self.roles, self.task, self.device, prefix="val_"),
            **evaluate(network, self.roles.test, self.roles, self.task, self.device, prefix="test_"),
        }
        costs = count_costs(network, example).as_dict()
        accuracies = {name: metrics[name] for name in ("val_accuracy", "test_accuracy")}
        return {**accuracies, **costs}

    def describe_data(self) -> dict[str, Any]:
        """Return which images scores come from and how they were chosen, as plain data."""
        return {
            "name": self.roles.name,
            "validation_from": self.header.validation_from,
            "train_images": self.header.train_images,
            "seed": self.header.data_seed,
            "n_calibration": len(self.roles.calibration),
            "fingerprint": self.roles.calibration.fingerprint(),
        }

    def train_(
        self,
        network: nn.Module,
        options: TrainingOptions,
        output: Path,
        *,
        is_fine_tuning: bool = False,
        teacher: nn.Module | None = None,
    ) -> None:
        """Train a network in place, printing progress; once it is stored, `remove_states` is due.

        Args:
            network: On the device.
            options: What the user gave.
            output: Where the result is going to lie.
            is_fine_tuning: Whether the network was trained before it was pruned.
            teacher: The dense network, where it is there to learn from.
        """
        recipe = make_recipe(
            options,
            self.header.dataset,
            len(self.roles.train),
            is_fine_tuning=is_fine_tuning,
            has_teacher=teacher is not None,
        )
        train_with_progress_(
            network,
            self.roles,
            self.task,
            recipe,
            output,
            seed=self.seed,
            device=self.device,
            teacher=teacher,
        )


def tell_of_uncounted(subject: Subject) -> None:
    """Warn on the standard error of layers whose MACs are in no count that follows."""
    if warning := warn_of_uncounted(subject.network, subject.roles.example_input()):
        click.echo(warning, err=True)


def look_for_groups(network: nn.Module, example_input: Tensor) -> Grouping:
    """Return a network's channel groups; how far the search is is printed where it takes long."""
    with ScoringProgress([], title="looking") as progress:
        return find_groups(network, example_input, progress=progress)


def new_subject(network: str, options: DataOptions) -> Subject:
    """Return an untrained network, of a known name or FILE.py:NAME, with its data."""
    device = choose_device(options.device)
    made_by = find_network(network)
    create_network(made_by)  # raises before anything is loaded
    roles, header, _ = _load_roles(options, Header(network=_without_folder(network)), is_new=True)
    header = header.changed(options=with_classes(made_by, header.options, roles.n_classes))
    untrained = create_network(made_by, header.options, seed=options.seed)
    check_fit(untrained, roles, task := make_task())
    return Subject(untrained.to(device), made_by, header, roles, task, device, options.seed)


def trained_subject(weights: Path, network: str | None, options: DataOptions) -> Subject:
    """Return the network of a weights file with its data, in the roles that its training had.

    Raises:
        ConfigurationError: If they are of a network of the user's own, and no file is named: what a weights
            file says is never run.
        WeightsError: If the file cannot be read or is of another network.
    """
    header = read_header(weights)
    device = choose_device(options.device)
    if network is None and header.network and not is_known(header.network):
        place = header.network if ":" in header.network else f"FILE.py:{header.network}"
        raise ConfigurationError(f"the network of {weights} is your own; try again with --network {place}")
    if network is not None and header.network and _without_file(network) != _without_file(header.network):
        raise ConfigurationError(
            f"expected weights of {network}, but {weights} says that it holds {header.network}; "
            f"try {'without --network' if is_known(header.network) else 'that one'}"
        )
    name = network or header.network or "lenet5"
    made_by = name if network is None else find_network(network)  # what the file says is never run
    failure = None
    try:
        loaded = _load(made_by, header.options, weights)
    except ClassesError as error:
        if header.options:
            raise
        failure = error  # whether the data have so many is known when they are loaded
    roles, header, is_learnt = _load_roles(options, header.changed(network=_without_folder(name)))
    adapted = with_classes(made_by, header.options, roles.n_classes)
    if adapted != header.options:
        header = header.changed(options=adapted)
        loaded = _load(made_by, adapted, weights)
    elif failure is not None:
        raise failure
    check_fit(loaded, roles, task := make_task())
    network_there = loaded.to(device).eval()
    return Subject(network_there, made_by, header, roles, task, device, options.seed, is_learnt)


def _without_folder(network: str) -> str:
    """Return FILE.py:NAME without the file's folder, which is another one elsewhere; else the name itself."""
    file, colon, name = network.rpartition(":")
    return f"{Path(file).name}:{name}" if colon else network


def _without_file(network: str) -> str:
    """Return NAME of FILE.py:NAME, as a study of one's own network writes it; other names as they are."""
    return network.rpartition(":")[2]


def _load(made_by: str | Callable[..., nn.Module], options: Mapping[str, Any], weights: Path) -> nn.Module:
    network = create_network(made_by, options)
    load_weights_(network, weights)
    return network


def pruned_subject(
    folder: Path, options: DataOptions, network: str | None
) -> tuple[Subject, dict[str, int], dict[str, list[int]]]:
    """Return a stored pruned network with its data, its architecture, and the channels that it kept.

    Args:
        network: FILE.py:NAME of what made the network that it was cut from, where that is the user's own.

    Raises:
        ConfigurationError: If it is the user's own, and no file is named.
        StudyError: If the folder holds no whole model.
    """
    stored = read_stored(folder)
    own = None if network is None else load_own_network(network, stored["network"])
    try:
        smaller = load_model(folder, own)
    except NotGivenError as error:
        name = stored["network"]["name"]
        raise ConfigurationError(
            f"the network of {folder} is your own; try again with --network FILE.py:{name}"
        ) from error
    header = Header.from_metadata(stored["network"].get(ORIGIN, {}), folder).changed(
        network=stored["network"]["name"], options=stored["network"].get("options") or {}
    )
    device = choose_device(options.device)
    roles, header, is_learnt = _load_roles(options, header)
    kept = {name: group["kept"] for name, group in stored["groups"].items()}
    made_by = own or stored["network"]["name"]
    check_fit(smaller, roles, task := make_task())
    subject = Subject(smaller.to(device), made_by, header, roles, task, device, options.seed, is_learnt)
    return subject, {name: len(channels) for name, channels in kept.items()}, kept


def store(
    folder: Path,
    subject: Subject,
    network: nn.Module,
    architecture: Mapping[str, int],
    kept: Mapping[str, Sequence[int]],
    metrics: Mapping[str, float],
) -> None:
    """Store a pruned network so that `retrain` and `dirprune.records.models.load_model` find it again.

    Args:
        folder: To write.
        subject: Whose network it was.
        network: The pruned one.
        architecture: Channels that each group keeps.
        kept: Their indices.
        metrics: Of the pruned network.
    """
    base = {
        **complete_identity(identify(subject.made_by)),
        "options": subject.origin.options,
        ORIGIN: subject.origin.to_metadata(),
    }
    save_model(
        folder,
        network,
        architecture=architecture,
        kept=kept,
        base=base,
        input_shape=subject.roles.input_shape,
        normalisation=subject.roles.normalisation,
        metrics=metrics,
    )


def _load_roles(
    options: DataOptions, header: Header, *, is_new: bool = False
) -> tuple[DataRoles, Header, bool]:
    """Load the data that the options and the weights ask for, and say aloud what was chosen.

    Args:
        options: What the user gave.
        header: What the weights say.
        is_new: Whether the weights have learnt nothing yet.

    Returns:
        The data, the header with how they are cut, and whether the weights have probably learnt validation.
    """
    dataset = options.dataset or header.dataset or ("mnist" if options.data else "digits")
    if header.dataset and dataset != header.dataset:
        click.echo(f"note: these weights were trained on {header.dataset}, they are used on {dataset}")
    if options.data is not None and dataset == "digits":
        raise ConfigurationError(
            "the digits come with scikit-learn and need no --data; try --dataset mnist, or leave --data out"
        )
    # The cut must be the one of the training: an image that it learned from must not judge it.
    usual = header.validation_from or (OWN_SPLIT if is_new else FOREIGN_SPLIT)
    validation_from = options.validation_from or usual
    seed = header.data_seed if header.data_seed is not None else options.seed
    limit = options.train_images or header.train_images
    load = partial(load_data, dataset, options.data, train_limit=limit, seed=seed)
    roles = load(validation_from=validation_from)
    verdict = Verdict()
    if not is_new:
        verdict = judge_cut(header.to_metadata(), validation_from, dataset, roles.identity)
    is_learnt = verdict.is_learnt and options.validation_from is not None
    if verdict.is_learnt and not is_learnt:
        validation_from = verdict.advice
        roles = load(validation_from=validation_from)
    if options.data is None and options.dataset is None and dataset == "digits":
        click.echo("data: no --data, so the handwritten digits that come with scikit-learn")
    else:
        click.echo(f"data: {dataset}" + (f" in {options.data}" if options.data else ""))
    if is_learnt:
        click.echo(f"{verdict.remark}; try {verdict.advice}")
    elif verdict.is_learnt:
        click.echo(f"{verdict.remark}: validation from {validation_from}")
    elif not verdict.is_known:
        click.echo(f"note: {validation_from} as in training, {verdict.remark}")
    elif not (is_new or header.validation_from or options.validation_from):
        click.echo(f"validation from {validation_from}: these weights may have seen the whole training set")
    _tell_of_images(roles)
    header = header.changed(
        dataset=dataset,
        validation_from=validation_from,
        data_seed=seed,
        train_images=limit,
        data_identity=roles.identity if verdict.is_known else "",
    )
    return roles, header, is_learnt


def _tell_of_images(roles: DataRoles) -> None:
    click.echo(
        f"images: {len(roles.train):,} train, {len(roles.calibration):,} of them calibration, "
        f"{len(roles.validation):,} validation, {len(roles.test):,} test; {roles.train.whereabouts}"
    )
    absent = sorted(set(range(roles.n_classes or 0)) - set(roles.calibration.targets.flatten().tolist()))
    if absent:
        click.echo(
            f"note: calibration has no image of class {', '.join(map(str, absent))}, "
            "so scores and batch norm know nothing of it; try more --train-images"
        )


def choose_device(name: str | None) -> str:
    """Return the device to compute on.

    Raises:
        ConfigurationError: If torch does not know the name or the device is not there.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = one_line(error).split(". ")[0]
        raise ConfigurationError(
            f"expected a device that is here, got {name!r} ({reason}); try --device cpu"
        ) from error
    return name


def format_comparison(measured: dict[str, dict[str, float]]) -> str:
    """Return a table of measures, one column per state of the network, in order."""
    metrics = list(next(iter(measured.values())))
    labels = {
        name: "MACs" if name == "macs" else name.replace("val_", "validation ").replace("_", " ")
        for name in metrics
    }
    rows = []
    for metric in metrics:
        is_fraction = metric.endswith("accuracy")
        values = [column[metric] for column in measured.values()]
        rows.append(
            [labels[metric], *(f"{value:.4f}" if is_fraction else f"{value:,.0f}" for value in values)]
        )
    return format_table(["", *measured], rows)

"""The dense network that every trial starts from: given weights, or trained once and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from dirprune.data import DataRoles
from dirprune.data.roles import FOREIGN_SPLIT, OWN_SPLIT
from dirprune.errors import ConfigurationError, suggest
from dirprune.identity import digest
from dirprune.kept_training import train_kept_
from dirprune.networks import as_file_name
from dirprune.networks.libraries import is_of_a_library
from dirprune.networks.weights import load_weights_, read_metadata, save_weights
from dirprune.recipe import Recipe
from dirprune.remote import RemoteFolder
from dirprune.study.place import Place, here
from dirprune.study.spec import StudySpec
from dirprune.training import TrainingReport, evaluate

TRAINED_FROM = "validation_from"
DATA_SEED = "data_seed"
DATA = "data"
DATA_IDENTITY = "data_identity"
NETWORK = "network"
OPTIONS = "options"
AS_ASKED = "as asked for"


@dataclass(frozen=True)
class DataChoice:
    """How the data are cut, and why.

    Attributes:
        validation_from: "train:F" or "test:F".
        seed: Seed of the cut.
        reason: One line for the user.
        is_known: Whether the weights say on which data they were trained, or there are none yet.
        is_learnt: Whether the weights have probably learnt the images of validation.
    """

    validation_from: str
    seed: int
    reason: str
    is_known: bool = True
    is_learnt: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether given weights have learnt the images of validation.

    Attributes:
        is_learnt: Whether they probably have.
        is_known: Whether that follows from what the weights say; else they are believed.
        remark: Why, for the user; empty where there is nothing to say.
        advice: A cut whose validation they have not learnt, where `is_learnt`.
    """

    is_learnt: bool = False
    is_known: bool = True
    remark: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Dense:
    """The dense network with what is known of it.

    Attributes:
        state: Its state dict, on the CPU.
        metrics: Its val_* and test_* metrics.
        digest: Hash of the weights.
        origin: The file that holds them.
    """

    state: dict[str, Tensor]
    metrics: dict[str, float]
    digest: str
    origin: Path


def choose_data(spec: StudySpec, weights: Path | None) -> DataChoice:
    """Choose where validation comes from: never from examples that the weights have learnt.

    Weights that dirprune trained carry the cut of their training and get the same one. Others are taken to
    have seen the whole training set, so that validation comes from the held-out set.

    Args:
        spec: The study; its `validation_from`, where given, is followed.
        weights: The file of the dense network's weights; None when it is trained here.

    Returns:
        The choice, which `compare_data` goes over once the data are known.
    """
    if weights is None:
        where = spec.validation_from or OWN_SPLIT
        source = "training" if where.startswith("train") else "held-out"
        return DataChoice(where, spec.seed, f"carved from the {source} set, unseen by training")
    metadata = read_metadata(weights)
    if spec.validation_from:
        return DataChoice(spec.validation_from, int(metadata.get(DATA_SEED, spec.seed)), AS_ASKED)
    if TRAINED_FROM in metadata:
        where = metadata[TRAINED_FROM]
        return DataChoice(
            where, int(metadata.get(DATA_SEED, 0)), f"{weights.name} was trained by dirprune on this cut"
        )
    reason = (
        f"{weights.name} has probably learnt the whole training set; "
        "validation and test are parts of the held-out set"
    )
    return DataChoice(FOREIGN_SPLIT, spec.seed, reason)


def judge_cut(origin: Mapping[str, str], validation_from: str, data: str, identity: str) -> Verdict:
    """Return whether weights have learnt the images that a cut of data gives to validation.

    Weights that do not say how their training was cut, and those of other data, are taken to have seen the
    whole training set.

    Args:
        origin: What the weights say of their training, see `describe_origin`; empty where they say nothing.
        validation_from: Where validation comes from.
        data: Name of the data that are cut. It decides only where an identity is missing.
        identity: Their `DataRoles.identity`.
    """
    if not validation_from.startswith("train"):
        return Verdict()
    own = origin.get(TRAINED_FROM, "")
    if own.startswith("train"):
        trained_on = origin.get(DATA_IDENTITY, "")
        is_known = bool(trained_on and identity)
        is_same = trained_on == identity if is_known else origin.get(DATA, "") in ("", data)
        if not is_same:
            remark = (
                "WARNING: these weights were trained on other data than these, or in another order, "
                "so that they may have learnt any of the training set"
            )
            return Verdict(is_learnt=True, remark=remark, advice=FOREIGN_SPLIT)
        if own == validation_from:
            remark = "" if is_known else "on trust: the weights do not say of which data"
            return Verdict(is_known=is_known, remark=remark)
    remark = "WARNING: these weights have probably learnt these images, so that validation measures memory"
    return Verdict(is_learnt=True, remark=remark, advice=own or FOREIGN_SPLIT)


def compare_data(choice: DataChoice, weights: Path | None, roles: DataRoles) -> DataChoice:
    """Return a choice as it stands when the data are known: a cut of other data is another cut.

    Args:
        choice: From `choose_data`.
        weights: The file of the dense network's weights; None when it is trained here.
        roles: The data, cut as it says.
    """
    if weights is None:
        return choice
    verdict = judge_cut(read_metadata(weights), choice.validation_from, roles.name, roles.identity)
    if not verdict.is_known:
        return replace(choice, reason=f"{choice.reason}; taken {verdict.remark}", is_known=False)
    if not verdict.is_learnt:
        return choice
    if choice.reason == AS_ASKED:
        return replace(choice, reason=f"{verdict.remark}; try {verdict.advice}", is_learnt=True)
    return DataChoice(verdict.advice, choice.seed, verdict.remark)


def describe_origin(network: Mapping[str, object], roles: DataRoles, choice: DataChoice) -> dict[str, str]:
    """Return what a weights file says of its training: network, data and the cut of the data.

    Where validation has probably been learnt, the cut is one whose validation was not, and no identity is
    told: it would be that of the training set, of which that validation is no part.

    Args:
        network: The network's identity with its options, as plain data.
        roles: The data trained on.
        choice: How they were cut.
    """
    origin = {
        NETWORK: str(network.get("name", "")),
        OPTIONS: json.dumps(network.get("options", {}), sort_keys=True),
        DATA: roles.name,
        TRAINED_FROM: FOREIGN_SPLIT if choice.is_learnt else choice.validation_from,
        DATA_SEED: str(choice.seed),
    }
    has_identity = choice.is_known and not choice.is_learnt
    return {**origin, DATA_IDENTITY: roles.identity} if has_identity else origin


def obtain_dense(
    spec: StudySpec,
    roles: DataRoles,
    choice: DataChoice,
    output: Path,
    weights: Path | None = None,
    listen: Callable[[TrainingReport, int], None] | None = None,
    *,
    place: Place = here,
    remote: RemoteFolder | None = None,
    known: Mapping[str, Mapping[str, float]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Dense:
    """Load the dense network's weights, or train it, once for all studies in the output folder.

    Args:
        spec: The study.
        roles: The data.
        choice: How the data were cut.
        output: Trained weights are kept in `<output>/dense`; an interrupted training goes on there.
        weights: Given weights; None trains.
        listen: Called with each report of the training, whose state can be captured where it was trained, and
            its total of training images.
        place: Where it is trained and judged; the weights are read and written here.
        remote: Where another machine keeps what an interrupted training goes on from; None: it sees `output`.
        known: Metrics of dense networks that were judged before, by the digest of their weights.
        progress: Told what is done, how far it is and of how many, while the network is judged.

    Raises:
        WeightsError: If the weights cannot be read safely or are those of another network.
        ConfigurationError: If an objective's metric is not among those of the evaluation.
    """
    network = spec.create_network()
    if weights is None:
        weights = _obtain_trained(network, spec, roles, choice, output, listen, place, remote)
    load_weights_(network, weights)
    state = _take_state(network)
    parts = [part for name, tensor in state.items() for part in (name, tensor.contiguous().numpy())]
    key = digest(*parts)
    heard = {} if progress is None else {"progress": progress}
    metrics = dict((known or {}).get(key) or place(_judge, spec, roles, state, **heard))
    check_metrics(spec, metrics)
    return Dense(state, metrics, key, weights)


def _judge(
    spec: StudySpec,
    roles: DataRoles,
    state: Mapping[str, Tensor],
    *,
    device: str,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, float]:
    """Return a network's metrics of validation and test."""
    n_validation, n_all = len(roles.validation), len(roles.validation) + len(roles.test)

    def tell_from(n_before: int) -> Callable[[int, int], None] | None:
        if progress is None:
            return None
        return lambda n_done, _: progress("images that judge the dense network", n_before + n_done, n_all)

    network = spec.create_network()
    network.load_state_dict(dict(state))
    network.to(device)
    task = spec.task()
    metrics = evaluate(network, roles.validation, roles, task, device, "val_", tell_from(0))
    return metrics | evaluate(network, roles.test, roles, task, device, "test_", tell_from(n_validation))


def _take_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def check_metrics(spec: StudySpec, metrics: Mapping[str, float]) -> None:
    """Check that the evaluation gives what the study optimises.

    Args:
        spec: The study.
        metrics: What the evaluation gave for some network.

    Raises:
        ConfigurationError: If an objective is missing; the nearest metric is named.
    """
    known = [name for name in metrics if name.startswith("val_")]
    for objective in spec.objectives:
        if objective.metric.startswith("val_") and objective.metric not in known:
            raise ConfigurationError(
                f"objective {objective.metric} is not among the evaluation's metrics"
                + suggest(objective.metric, known)
            )


def _obtain_trained(
    network: nn.Module,
    spec: StudySpec,
    roles: DataRoles,
    choice: DataChoice,
    output: Path,
    listen: Callable[[TrainingReport, int], None] | None,
    place: Place,
    remote: RemoteFolder | None,
) -> Path:
    """Train the network unless the same training is kept already; return the file of its weights."""
    recipe = replace(spec.dense, images=spec.images(spec.dense_epochs, roles))
    identity = spec.identify_network()
    key = digest(identity, spec.task().loss_identity, asdict(recipe), roles.fingerprint(), spec.seed)[:12]
    name = identity["name"]
    short = name if is_of_a_library(name) else name.rpartition(".")[2]
    path = output / "dense" / f"{as_file_name(short)}-{roles.name}-{key}.safetensors"
    if path.exists():
        return path
    checkpoint = path.with_suffix(".state.pt").absolute()
    if remote is not None and checkpoint.exists() and remote.read(checkpoint.name) is None:
        remote.write(checkpoint.name, checkpoint.read_bytes())  # an earlier run trained here
    state = place(_train, spec, roles, recipe, checkpoint, remote, listen=listen or _hear_nothing)
    network.load_state_dict(state)
    save_weights(network, path, describe_origin(identity, roles, choice))
    checkpoint.unlink(missing_ok=True)
    if remote is not None:
        remote.remove(checkpoint.name)
    return path


def _train(
    spec: StudySpec,
    roles: DataRoles,
    recipe: Recipe,
    checkpoint: Path,
    remote: RemoteFolder | None,
    *,
    device: str,
    listen: Callable[[TrainingReport, int], None],
) -> dict[str, Tensor]:
    """Train the network from its first weights, or go on, and return its state dict, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        network = spec.create_network()
    with ExitStack() as stack:
        if remote is not None:  # the checkpoint's folder is on another machine
            scratch = TemporaryDirectory(prefix="dirprune-", ignore_cleanup_errors=True)
            checkpoint = Path(stack.enter_context(scratch)) / checkpoint.name
            if (content := remote.read(checkpoint.name)) is not None:
                checkpoint.write_bytes(content)
        for report in train_kept_(
            network,
            roles,
            spec.task(),
            recipe,
            checkpoint,
            seed=spec.seed,
            device=device,
            kept=None if remote is None else lambda: remote.write(checkpoint.name, checkpoint.read_bytes()),
            origin=None if remote is None else remote.below(checkpoint.name).uri,
        ):
            listen(report, recipe.images)
    return _take_state(network)


def _hear_nothing(report: TrainingReport, n_images: int) -> None: ...


def compare_roles(metrics: Mapping[str, float], n_validation: int, n_test: int) -> str | None:
    """Return a warning when validation and test accuracy differ by more than three standard errors.

    Args:
        metrics: Of the dense network, with val_accuracy and test_accuracy; others are not compared.
        n_validation: Examples in the validation role.
        n_test: Examples in the test role.
    """
    if "val_accuracy" not in metrics or "test_accuracy" not in metrics:
        return None
    validation, test = metrics["val_accuracy"], metrics["test_accuracy"]
    pooled = (validation * n_validation + test * n_test) / (n_validation + n_test)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n_validation + 1 / n_test))
    if abs(validation - test) <= 3 * error:
        return None
    return (
        f"WARNING: the dense network has {validation:.4f} on validation and {test:.4f} on test, more than "
        f"three standard errors ({3 * error:.4f}) apart; validation may measure memory: see --validation-from"
    )

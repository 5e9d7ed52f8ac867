"""Keeps scores on disk by what they were computed from, so that no trial of any run computes them again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from dirprune.errors import ImportanceError
from dirprune.files import write_atomically
from dirprune.identity import digest, identify, keep_plain, to_array
from dirprune.importance.answers import describe_answers
from dirprune.importance.base import Scores, ScoringContext, Selector
from dirprune.importance.lines import CheckedLines
from dirprune.importance.registry import describe
from dirprune.remote import RemoteFolder

SCORES_VERSION = 3  # raised when compute_scores itself gives other numbers


class ScoreCache:
    """A folder of scores, one safetensors file for each key.

    Safe for many processes and machines that share the folder: files get their name only when whole, and
    while one process computes, others that ask for the same key wait. The lease is a lock of the operating
    system, so that it ends when its owner does, however it ends.

    Args:
        folder: Made when it does not exist.
        remote: Where machines that do not see the folder look for scores and leave theirs; None: nowhere.
            Two of them may compute the same ones at the same time.
    Attributes:
        n_found: How many of those that were asked for are in the folder by now.
    Raises:
        ImportanceError: If the folder cannot be made.
    """

    def __init__(self, folder: str | Path, remote: RemoteFolder | None = None) -> None:
        self.folder, self.remote = Path(folder), remote
        self.n_found = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImportanceError(
                f"score cache must be a folder that can be written, got {self.folder} ({error.strerror}); "
                "choose another folder"
            ) from error

    def path(self, key: str) -> Path:
        """Return where the scores of a key lie, computed or not."""
        return self.folder / f"{key}.safetensors"

    def get_or_compute(self, key: str, compute: Callable[[], Scores]) -> tuple[Scores, bool]:
        """Return the scores of a key, from the folder or else computed here and stored.

        Args:
            key: What the scores depend on; see `score_key`.
            compute: Called at most once, and only while no other process computes the same key.
        Returns:
            The scores, and whether they came from the folder.
        """
        found = self._get_or_compute(key, compute)
        self.n_found += 1
        return found

    def find(self, key: str) -> Scores | None:
        """Return the scores of a key; None where they are still to be computed."""
        scores = self._read(key)
        if scores is None:
            self._fetch(key)
            scores = self._read(key)
        return scores

    def _get_or_compute(self, key: str, compute: Callable[[], Scores]) -> tuple[Scores, bool]:
        scores = self._read(key)
        if scores is not None:
            return scores, True
        with FileLock(self.folder / f"{key}.lock"):
            scores = self.find(key)
            if scores is not None:
                return scores, True
            scores = compute()
            with write_atomically(self.path(key)) as temporary:
                contiguous = {name: values.contiguous() for name, values in scores.items()}
                temporary.write_bytes(save(contiguous, {"key": key}))  # a full disk is an OSError this way
            if self.remote is not None:
                self.remote.write(self.path(key).name, self.path(key).read_bytes())
            return scores, False

    def _fetch(self, key: str) -> None:
        content = None if self.remote is None else self.remote.read(self.path(key).name)
        if content is not None:
            with write_atomically(self.path(key)) as temporary:
                temporary.write_bytes(content)

    def _read(self, key: str) -> Scores | None:
        """Return stored scores; None when there are none, or the file is cut short or of another key."""
        try:
            with safe_open(self.path(key), framework="pt") as stored:
                if (stored.metadata() or {}).get("key") != key:
                    return None
                return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError):
            return None


def score_key(method: Selector, context: ScoringContext, architecture: dict[str, int] | None = None) -> str:
    """Return the digest of everything that scores depend on.

    That is: what `context_key` says, the method with its version and options, and the seed; for a selector
    also the architecture; and what `Selector.depends_on` says.
    """
    beside = method.depends_on(context)
    return digest(
        {
            "scores_version": SCORES_VERSION,
            "context": context_key(context),
            "method": describe(method),
            "seed": context.seed,
            "architecture": architecture,
        },
        *([] if beside is None else [beside]),
    )


def open_lines(
    method: Selector, context: ScoringContext, architecture: Mapping[str, int] | None = None
) -> CheckedLines | None:
    """Return where a method keeps what it has come to so far; None where the context has no workspace.

    Raises:
        ImportanceError: If the workspace cannot be written.
    """
    if context.workspace is None:
        return None
    key = score_key(method, context, None if architecture is None else dict(architecture))
    return CheckedLines(context.workspace / "under-way" / f"{key}.jsonl")


def context_key(context: ScoringContext) -> str:
    """Return the digest of what every method works on.

    That is: the weights and the structure of the network, what it answers to a few examples (see
    `describe_answers`), the calibration examples and their indices, the normalisation, the groups and the
    loss; not the seed. The answers are computed once for each context and what is made of it by
    `dataclasses.replace`, as long as nothing else changes.
    """
    network, calibration = context.network, context.calibration
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    weights: list[Any] = []
    for name, value in sorted(tensors.items()):
        weights += [name, str(value.dtype), to_array(value)]
    probe = context.normalise(calibration.inputs[:8].cpu())
    of_all_else = digest(
        {
            "network": [repr(network), describe_modules(network)],
            "normalise": identify(context.normalise),
            "grouping": context.grouping.fingerprint(),
            "task": context.task.loss_identity,
            "calibration": calibration.fingerprint(),
        },
        *weights,
        to_array(probe),
    )
    if of_all_else not in context.answers:
        context.answers[of_all_else] = digest(of_all_else, describe_answers(network, probe))
    return context.answers[of_all_else]


def describe_modules(network: nn.Module) -> dict[str, Any]:
    """Return the class of every module and what it carries, but for its mode.

    Plain values count, functions and classes by their source, tensors by their content; of other objects the
    type, and its source where they can be called.
    """
    known: dict[Any, dict[str, Any]] = {}
    described = {}
    for path, module in network.named_modules():
        carried = {
            name: value for name, value in vars(module).items() if name[0] != "_" and name != "training"
        }
        described[path] = [_identify_once(type(module), known), _describe_carried(carried, known)]
    return described


def _describe_carried(value: Any, known: dict[Any, dict[str, Any]]) -> Any:
    """Return what a module carries, as plain data."""
    if isinstance(value, Mapping):
        return {str(key): _describe_carried(item, known) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_describe_carried(item, known) for item in value]
    if inspect.ismethod(value):  # of whatever object: what this one carries is not followed
        return _identify_once(value.__func__, known)
    if inspect.isroutine(value) or inspect.isclass(value):
        return _identify_once(value, known)
    if isinstance(value, functools.partial):
        return identify(value)
    if callable(value):
        return _identify_once(type(value), known)
    return keep_plain(value.detach() if isinstance(value, nn.Parameter) else value)  # with its content


def _identify_once(target: Any, known: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return what `identify` says; it reads source, which takes long."""
    if target not in known:
        known[target] = identify(target)
    return known[target]

"""Digests depend on content, type and order; a callable's identity on its source and its own values."""

from __future__ import annotations

import functools
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dirprune.architecture import Architecture
from dirprune.identity import digest, identify

PARTS = st.lists(st.integers(0, 3) | st.text("ab", max_size=2) | st.binary(max_size=1), max_size=3)


def halve(value: float) -> float:
    return value / 2


def make_scaler(factor: float):
    def scale(value: float) -> float:
        return value * factor

    return scale


class WeightedLoss(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.ce = nn.CrossEntropyLoss(weight=torch.tensor([1.0, factor]))
        self._factors = nn.Parameter(torch.tensor([factor]), requires_grad=False)
        self.owners = [self]


def weigh(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, targets, weight=WEIGHTS)


WEIGHTS = torch.ones(2)


@torch.no_grad()
def weigh_without_gradients(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return weigh(outputs, targets) * WEIGHTS


def scaled(function):
    @functools.wraps(function)
    def scale(*arguments):
        return function(*arguments) * WEIGHTS

    return scale


class NamingLoss(nn.Module):
    @torch.no_grad()
    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, weight=WEIGHTS)


class ScaledLoss(nn.Module):
    @scaled
    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets)


class NamingNetwork(nn.Linear):
    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("weights", WEIGHTS)


class Scaler:
    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.helper = object()

    def __call__(self, value: float) -> float:
        return value * self.factor

    def scale(self, value: float) -> float:
        return value * self.factor


@given(PARTS, PARTS)
def test_digests_are_equal_exactly_when_the_parts_are(first, second) -> None:
    assert (digest(*first) == digest(*second)) == (first == second)


@pytest.mark.slow
def test_digest_is_the_same_in_another_process() -> None:
    code = "import numpy, dirprune.identity as i; print(i.digest('a', b'b', numpy.arange(3.0), {'c': [1]}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest("a", b"b", np.arange(3.0), {"c": [1]})
    assert len(result.stdout.strip()) == 32


def test_parts_do_not_run_into_each_other() -> None:
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest(b"ab", b"c") != digest(b"a", b"bc")


@pytest.mark.parametrize(
    "other",
    [
        np.arange(6),
        np.arange(6.0).reshape(2, 3),
        np.arange(6.0, dtype=np.float32),
        np.arange(6.0)[::-1],
    ],
)
def test_an_array_counts_with_content_type_and_shape(other: np.ndarray) -> None:
    assert digest(other) != digest(np.arange(6.0))


def test_memory_layout_of_an_array_does_not_count() -> None:
    table = np.arange(6.0).reshape(2, 3)
    assert digest(np.asfortranarray(table)) == digest(table)


def test_an_array_is_hashed_without_a_copy_of_it() -> None:
    table = np.zeros(2**20)
    tracemalloc.start()
    digest(table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < table.nbytes / 8


def test_order_of_keys_does_not_count_and_any_mapping_will_do() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"architecture": Architecture({"b": 2, "a": 1})}) == digest(
        {"architecture": {"a": 1, "b": 2}}
    )


def test_what_has_no_stable_content_is_refused() -> None:
    with pytest.raises(TypeError, match="something JSON-able, got a object"):
        digest(object())
    with pytest.raises(TypeError, match="an array of objects has no content"):
        digest(np.array([object()]))


def test_a_name_is_its_own_identity() -> None:
    assert identify("lenet5") == {"name": "lenet5"}


def test_a_function_is_known_by_module_name_and_source() -> None:
    identity = identify(halve)
    assert (identity["module"], identity["name"]) == (__name__, "halve")
    assert identity["source_sha256"] == digest("def halve(value: float) -> float:\n    return value / 2\n")
    assert set(identity) == {"module", "name", "source_sha256"}


def test_a_change_of_the_source_changes_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    identities = []
    for number in (1, 2):
        (tmp_path / f"mine{number}.py").write_text(f"def loss(x):\n    return x * {number}\n")
        identities.append(identify(__import__(f"mine{number}").loss)["source_sha256"])
    assert identities[0] != identities[1]


def test_a_function_without_a_file_is_known_by_its_code() -> None:
    spaces: list[dict] = [{}, {}, {}]
    for space, text in zip(spaces, ("x * 2", "x * 3", "x * 2"), strict=True):
        exec(f"def loss(x):\n    return {text}\n", space)
    hashes = [identify(space["loss"])["source_sha256"] for space in spaces]
    assert hashes[0] == hashes[2] != hashes[1]


@pytest.mark.parametrize(
    "make",
    [
        make_scaler,
        Scaler,
        lambda factor: functools.partial(halve, value=factor),
        lambda factor: Scaler(factor).scale,
        lambda factor: functools.partial(halve, value=torch.tensor([1.0, factor])),
        lambda factor: make_scaler(torch.tensor(factor, dtype=torch.bfloat16, requires_grad=True)),
        lambda factor: make_scaler({"factors": [np.array([factor])]}),
        lambda factor: make_scaler(np.float32(factor)),
        lambda factor: make_scaler({"a", str(factor)}),
        lambda factor: make_scaler(bytes(int(factor))),
        lambda factor: nn.CrossEntropyLoss(weight=torch.tensor([1.0, factor])),
        lambda factor: make_scaler(nn.CrossEntropyLoss(weight=torch.tensor([1.0, factor]))),
        lambda factor: make_scaler(nn.CrossEntropyLoss(label_smoothing=factor / 4)),
        lambda factor: functools.partial(halve, crit=nn.CrossEntropyLoss(weight=torch.tensor([factor]))),
        lambda factor: functools.partial(make_scaler(torch.tensor(factor)), 1.0),
        WeightedLoss,
        lambda factor: make_scaler(WeightedLoss(factor)),
        lambda factor: make_scaler(torch.tensor([complex(1, factor)]).conj()),
        lambda factor: make_scaler(torch.tensor([complex(1, factor)]).conj().imag),
        lambda factor: make_scaler(torch.nested.nested_tensor([torch.tensor([factor])], layout=torch.jagged)),
        lambda factor: make_scaler(
            torch.nested.nested_tensor([torch.ones(int(factor))], layout=torch.jagged)
        ),
        lambda factor: make_scaler(np.ma.masked_equal([2.0, 3.0], factor)),
    ],
)
def test_values_that_a_callable_carries_count(make) -> None:
    assert identify(make(2.0)) == identify(make(2.0))
    assert identify(make(2.0)) != identify(make(3.0))


def test_values_of_a_callable_inside_a_partial_count() -> None:
    first, second = (functools.partial(make_scaler(factor), 1.0) for factor in (2.0, 3.0))
    assert identify(first) != identify(second)


@pytest.mark.parametrize(
    "naming",
    [
        weigh,
        weigh_without_gradients,
        scaled(halve),
        torch.no_grad()(scaled(halve)),
        functools.lru_cache(scaled(halve)),
        NamingLoss(),
        ScaledLoss(),
        NamingNetwork,
        functools.partial(NamingNetwork),
    ],
)
def test_a_tensor_that_a_function_names_counts(naming, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identify(naming)
    assert identify(naming) == before
    monkeypatch.setattr(f"{__name__}.WEIGHTS", torch.tensor([1.0, 2.0]))
    assert identify(naming) != before


def test_tensors_of_one_name_count_in_each_of_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"WEIGHTS": torch.ones(2)}
    exec("def loss(x):\n    return x * WEIGHTS\n", file)
    loss = scaled(file["loss"])
    identities = [identify(loss)]
    file["WEIGHTS"] = torch.zeros(2)
    identities.append(identify(loss))
    monkeypatch.setattr(f"{__name__}.WEIGHTS", torch.zeros(2))
    identities.append(identify(loss))
    assert len({identity["content_sha256"] for identity in identities}) == 3


def test_a_decorator_that_names_no_tensor_adds_no_content() -> None:
    assert "content_sha256" not in identify(functools.wraps(halve)(lambda value: halve(value)))
    named = {"WEIGHTS": [str(WEIGHTS.dtype), digest(WEIGHTS.numpy())]}
    assert identify(weigh)["content_sha256"] == digest([[], named])
    assert identify(functools.lru_cache(weigh))["content_sha256"] == digest([[], named])


def test_an_attribute_of_the_name_of_a_tensor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(context):
        return context.WEIGHTS

    before = identify(read)
    monkeypatch.setattr(f"{__name__}.WEIGHTS", torch.tensor([1.0, 2.0]))
    assert identify(read) == before
    assert "content_sha256" not in before


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
def test_a_quantised_tensor_counts() -> None:
    def make(factor: float):
        return make_scaler(torch.quantize_per_tensor(torch.tensor([factor]), 0.5, 0, torch.qint8))

    assert identify(make(2.0)) == identify(make(2.0)) != identify(make(3.0))


def test_weights_that_are_drawn_anew_and_the_mode_of_a_module_do_not_count() -> None:
    def make(*sizes: int, batch_norm: bool = True):
        return make_scaler(
            nn.Sequential(nn.Linear(*sizes), nn.BatchNorm1d(sizes[1], affine=batch_norm)).eval()
        )

    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    network.register_forward_hook(print)
    assert identify(make_scaler(network)) == identify(make(2, 3))
    assert identify(make(2, 3)) != identify(make(2, 4))
    assert identify(make(2, 3)) != identify(make(2, 3, batch_norm=False))
    network[1].running_mean.add_(1.0)
    assert identify(make_scaler(network)) != identify(make(2, 3))


def test_a_module_that_waits_for_its_inputs_counts_with_its_outputs() -> None:
    assert identify(make_scaler(nn.LazyLinear(3))) == identify(make_scaler(nn.LazyLinear(3)))
    assert identify(make_scaler(nn.LazyLinear(3))) != identify(make_scaler(nn.LazyLinear(4)))
    assert identify(nn.LazyLinear(3)) != identify(nn.LazyLinear(4))


@pytest.mark.parametrize(
    ("carrier", "state", "has_content"),
    [
        (make_scaler(2.0), [[2.0]], False),
        (make_scaler(torch.ones(2)), [["Tensor"]], True),
        (functools.partial(halve, value=torch.ones(2)), [None, [], {"value": "Tensor"}], True),
    ],
)
def test_content_is_beside_the_state_that_earlier_studies_know(carrier, state, has_content: bool) -> None:
    identity = identify(carrier)
    assert identity["state_sha256"] == digest(state)
    assert ("content_sha256" in identity) is has_content


def test_tensors_and_arrays_without_content_count_with_type_and_shape() -> None:
    first, second = (identify(make_scaler(torch.empty(n, device="meta"))) for n in (1, 2))
    assert first != second
    assert identify(make_scaler(np.array([object()]))) == identify(make_scaler(np.array([object()])))


def test_settings_of_a_loss_module_count() -> None:
    assert identify(nn.CrossEntropyLoss(label_smoothing=0.1)) != identify(nn.CrossEntropyLoss())
    assert identify(nn.CrossEntropyLoss()) == identify(nn.CrossEntropyLoss())


def test_compiled_code_has_no_source() -> None:
    assert identify(len) == {"module": "builtins", "name": "len", "source_sha256": None}

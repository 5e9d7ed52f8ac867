"""Importance methods of a user's own are known where they were sent, or it is said why not."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from ray import cloudpickle

from dirprune.errors import ImportanceError
from dirprune.importance import create, get_method, list_methods, registry
from dirprune.importance.registry import describe
from dirprune.study.space import SearchSpace
from dirprune.tuning import gpu_share
from dirprune.tuning.errands import LOGGED, STARTED, _run
from dirprune.tuning.own_methods import OwnMethods

CODE = """
from dirprune.importance import Scorer, register

@register("own", "mine", cost="none", needs_data=False, needs_gradients=False, stochastic=False)
class Own(Scorer):
    def score(self, context):
        return weigh(context)

def weigh(context):
    return {}
"""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The registry of the process that sends; it is this test's own."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    return registry._METHODS


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module that can be imported as long as nobody deletes it."""
    module = types.ModuleType("a_users_module")
    sys.modules[module.__name__] = module
    yield module
    sys.modules.pop(module.__name__, None)


def send(monkeypatch: pytest.MonkeyPatch) -> OwnMethods:
    """Return a study's own methods as they arrive in a process that does not know them."""
    sent = cloudpickle.dumps(OwnMethods.of(SearchSpace(methods={"own": {}, "magnitude": {}}).users_own()))
    others = {name: method for name, method in registry._METHODS.items() if name != "own"}
    monkeypatch.setattr(registry, "_METHODS", others)
    arrived = cloudpickle.loads(sent)
    assert isinstance(arrived, OwnMethods)
    return arrived


def test_a_method_of_a_script_is_known_where_it_arrives_with_the_code_that_it_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exec(CODE, {"__name__": "__main__"})
    described = describe(create("own"))
    arrived = send(monkeypatch)
    assert "own" not in list_methods()
    for _ in range(2):
        arrived.register()
        assert describe(create("own")) == described
        assert list(SearchSpace(methods={"own": {}}).users_own()) == ["own"]


def test_a_method_of_a_module_is_the_one_that_is_imported(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType
) -> None:
    exec(CODE, module.__dict__)
    send(monkeypatch).register()
    assert get_method("own").factory is module.Own


def test_a_module_with_other_code_is_refused_before_it_is_used_and_not_after(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType
) -> None:
    exec(CODE, module.__dict__)
    arrived = send(monkeypatch)
    arrived.register()
    exec(CODE.replace("return {}", "return {1: 2}"), module.__dict__)
    with pytest.raises(
        ImportanceError,
        match=r"^node .* has other code of the module 'a_users_module' than the study's for the importance "
        r"method 'own'; put the same file there, or start the study again if the file was edited; a constant "
        r"that is computed at import, such as os\.cpu_count\(\) or time\.time\(\), may be why, too: compute "
        r"it in the method$",
    ):
        arrived.register()
    exec(CODE.replace("weigh(context)", "len(MEMORY)") + "\nMEMORY = {}", module.__dict__)
    arrived = send(monkeypatch)
    for _ in range(2):
        arrived.register()
        module.MEMORY["a"] = 1  # type: ignore[attr-defined]


def test_a_module_whose_method_has_filled_a_constant_is_the_one_that_was_sent(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType
) -> None:
    code = CODE.replace("return weigh(context)", "return MEMORY") + "\nMEMORY = {}"
    exec(code, module.__dict__)
    space = SearchSpace(methods={"own": {}})
    described = space.describe()
    module.MEMORY["a"] = 1  # type: ignore[attr-defined]  # as scores for warm starts do
    assert space.describe() == described
    arrived = send(monkeypatch)
    exec(code, module.__dict__)  # as another process imports it
    arrived.register()
    assert SearchSpace(methods={"own": {}}).describe() == described


@pytest.mark.parametrize(
    ("since", "is_refused"),
    [("", False), ("MEMORY = {1: 1}", True), ("def weigh(context):\n    return {1: 2}", True)],
)
def test_a_module_in_which_something_was_bound_anew_is_not_the_one_that_a_node_imports(
    since: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch, module: types.ModuleType
) -> None:
    code = CODE.replace("weigh(context)", "weigh(MEMORY)", 1) + "\nMEMORY = {}"
    exec(code, module.__dict__)
    create("own")
    exec(since, module.__dict__)
    arrived = send(monkeypatch)
    exec(code, module.__dict__)  # as another process imports it
    with pytest.raises(ImportanceError, match="other code") if is_refused else nullcontext():
        arrived.register()


def test_a_module_that_is_not_there_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType
) -> None:
    exec(CODE, module.__dict__)
    arrived = send(monkeypatch)
    del sys.modules[module.__name__]
    with pytest.raises(
        ImportanceError,
        match=r"^importance method 'own' of the module 'a_users_module' cannot be loaded on node .* "
        r"\(ModuleNotFoundError: No module named 'a_users_module'\); put the method into the study script, "
        r"or its module beside the script, into PYTHONPATH of every node, or into py_modules",
    ):
        arrived.register()


def test_an_errand_knows_the_methods_of_its_study(monkeypatch: pytest.MonkeyPatch) -> None:
    exec(CODE, {"__name__": "__main__"})
    monkeypatch.setattr(gpu_share, "count_own_gpus", lambda: 0.0)  # only a worker has any
    posts: Any = {name: lambda *said: None for name in (STARTED, LOGGED)}
    assert _run(_create, ("own",), posts, 1, None, send(monkeypatch)) == "Own"


def _create(name: str, device: str) -> str:
    return type(create(name)).__name__

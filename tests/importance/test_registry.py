"""The registry: names, options, and clear words for wrong ones."""

from __future__ import annotations

import dataclasses
import functools
import re
import subprocess
import sys
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dirprune.errors import ImportanceError
from dirprune.importance import Method, create, get_method, list_methods, register, registry, select_channels
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.code import hash_code
from dirprune.importance.magnitude import Magnitude
from dirprune.importance.registry import adopt, describe
from tests.importance.cases import linear_case

FLAGS = {"needs_data": False, "needs_gradients": False, "stochastic": False}
NEEDS: dict[str, Any] = {"cost": "nothing", **FLAGS}


class Unregistered(Scorer):
    """A user's own method."""

    def score(self, context: ScoringContext) -> Scores:
        return {}


def test_methods_are_listed_by_name_and_wildcard() -> None:
    assert {"dirichlet", "fisher", "magnitude", "random", "taylor"} <= set(list_methods())
    assert list_methods("mag*") == ["magnitude"]
    assert list_methods() == sorted(list_methods())


@pytest.mark.parametrize("name", list_methods())
def test_record_of_every_method_is_complete(name: str) -> None:
    method = get_method(name)
    assert method.name == name
    for text in (method.summary, method.cost):
        assert text
        assert "\n" not in text
    assert method.version >= 1
    assert create(name).options == method.factory.Options(**method.options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in list_methods()),
        *((name, {"search": "curvature"}) for name in list_methods("greedy*")),
    ],
)
def test_methods_say_whether_they_keep_what_they_have_computed(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    method = create(name, options)
    context = dataclasses.replace(linear_case([1.0, 2.0, 3.0], n_examples=8), workspace=tmp_path)
    select_channels(method, context, {"0": 1})
    assert bool(list(tmp_path.rglob("*.jsonl"))) is method.is_kept_in_parts


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(
        ImportanceError, match="unknown importance method 'magnitud'; did you mean 'magnitude'"
    ):
        create("magnitud")


def test_unknown_option_names_the_nearest() -> None:
    with pytest.raises(
        ImportanceError, match="unknown option 'nrom' of method 'magnitude'; did you mean 'norm'"
    ):
        create("magnitude", {"nrom": "l2"})
    with pytest.raises(ImportanceError, match="unknown option 'norm' of method 'random'; known: none"):
        create("random", {"norm": "l2"})


def test_taken_name_is_refused() -> None:
    with pytest.raises(
        ImportanceError, match=r"'magnitude' is taken by dirprune.importance.magnitude.Magnitude"
    ):
        register("magnitude", "mine", **NEEDS)(Unregistered)
    assert get_method("magnitude").factory is Magnitude


def define(code: str, module: str = "a_users_module", file: str = "<string>") -> type[Any]:
    """Run what a user's file says, in a module of its own, and return its class `Own`."""
    program = types.ModuleType(module)
    exec(compile(code, file, "exec"), program.__dict__)
    return program.__dict__["Own"]


POWER = 2


def raised(function: Callable[..., float]) -> Callable[..., float]:
    @functools.wraps(function)
    def rise(*given: Any) -> float:
        return function(*given) ** POWER

    return rise


OWN = """
import functools
from dirprune.importance import Scorer
FACTOR = 2
UNUSED = 1
GAIN = 1

def scaled(function):
    @functools.wraps(function)
    def scale(*given):
        return function(*given) * GAIN
    return scale

def weigh(weight):
    return 0.5

class Base(Scorer):
    def score(self, context):
        return {}

class Own(Base):
    @property
    @scaled
    def half(self):
        return FACTOR * weigh(1)
"""


@pytest.mark.parametrize(
    ("old", "new", "is_noticed"),
    [
        ("", "", False),
        ("UNUSED = 1", "UNUSED = 2", False),
        ("FACTOR = 2", "FACTOR = 3", True),
        ("GAIN = 1", "GAIN = 2", True),
        ("* GAIN", "+ GAIN", True),
        ("0.5", "0.25", True),
        ("return {}", "return {1: 2}", True),
        ("* weigh", "- weigh", True),
    ],
)
def test_a_users_own_method_is_described_by_its_code_with_what_that_names(
    known_methods: None, old: str, new: str, is_noticed: bool
) -> None:
    described = []
    for code in (OWN, OWN.replace(old, new)):
        own = register("own", "mine", **NEEDS)(define(code))  # anew, as in a notebook
        assert get_method("own").factory is own
        described.append(describe(create("own")))
    assert described[0].keys() == {"name", "version", "code_sha256", "options"}
    assert (described[0] != described[1]) is is_noticed


@pytest.mark.parametrize("is_script", [pytest.param(False, marks=pytest.mark.slow), True])
def test_code_is_what_was_loaded_and_not_what_its_file_became(is_script: bool, tmp_path: Path) -> None:
    registered = OWN.replace("class Own", f"@registry.register('own', 'mine', **{NEEDS})\nclass Own")
    ask = "print(registry.get_method('own').code_sha256)\n"
    edit = "Path(FILE).write_text(Path(FILE).read_text().replace('0.5', '0.25'))\n"
    head = "from pathlib import Path\nfrom dirprune.importance import registry\n"
    file, main = tmp_path / "own.py", tmp_path / "main.py"
    if is_script:
        main.write_text(head + registered + ask + edit.replace("FILE", "__file__") + ask)
    else:
        file.write_text(head + registered)
        reload = "import importlib; importlib.reload(own)\n"
        main.write_text(
            head + "import own\n" + ask + edit.replace("FILE", repr(str(file))) + ask + reload + ask
        )
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    first, second, *reloaded = done.stdout.split()
    assert first == second
    assert is_script or reloaded != [first]


MORE = """
from functools import partial
from dirprune.importance import Scorer
network, NAMES, RAW, LOOP = 1, {"a", "b"}, b"a", []
LOOP.append(LOOP)

class Meta(type(Scorer)):
    def __eq__(self, other):
        return self is other

def double(x):
    return 2 * x

def halve(x):
    return x / 2

class Squarer:
    def square(self, x):
        return x**2

class Cuber:
    def __call__(self, x):
        return x**3

table, halver, square, cube = {"double": [double, LOOP]}, partial(halve, 2), Squarer().square, Cuber()
NOISE = 1

class Own(Scorer, metaclass=Meta):
    def score(self, context):
        return context.NOISE, (lambda: NAMES), RAW, LOOP, table, halver, square, cube
"""


@pytest.mark.parametrize(
    ("old", "new", "is_noticed"),
    [
        ('"a", "b"', '"b", "a"', False),
        ('"a", "b"', '"a", "c"', True),
        ('b"a"', 'b"b"', True),
        ("2 * x", "3 * x", True),
        ("x / 2", "x / 3", True),
        ("x**2", "x**4", True),
        ("x**3", "x**4", True),
        ("NOISE = 1", "NOISE = 2", False),
    ],
)
def test_code_is_found_through_whatever_names_it_and_attributes_name_nothing(
    old: str, new: str, is_noticed: bool
) -> None:
    codes = {hash_code(define(code)) for code in (MORE, MORE.replace(old, new))}
    assert (len(codes) == 2) is is_noticed


def test_a_wrapper_counts_by_its_own_lines_of_the_file(tmp_path: Path) -> None:
    codes = []
    for name, code in (("same", OWN), ("again", OWN), ("edited", OWN.replace("* GAIN", "+ GAIN"))):
        file = tmp_path / f"{name}.py"
        file.write_text(code)
        codes.append(hash_code(define(code, file=str(file))))
    assert codes[0] == codes[1] != codes[2]


def test_a_wrapper_of_another_file_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = OWN.replace("GAIN = 1\n", f"from {__name__} import raised\n").replace("@scaled", "@raised")
    codes = [hash_code(define(imported))]
    monkeypatch.setattr(f"{__name__}.POWER", 3)
    codes.append(hash_code(define(imported)))
    assert codes[0] == codes[1]


def test_a_users_own_method_of_the_same_place_is_the_same_under_another_name_of_the_module(
    known_methods: None,
) -> None:
    codes = [Method("own", "", "", "", define(OWN, module), 1, **FLAGS).code_sha256 for module in "ab"]
    assert codes[0] == codes[1]


FILLED = """
import torch
from dirprune.importance import Scorer
MEMORY, TOTAL, notes = {}, torch.zeros(2), []

class Entry:
    pass

def remember(key, known={}, *, parts=[]):
    MEMORY[key] = Entry()
    TOTAL.add_(1)
    notes.append(Entry())
    known[key] = key
    parts.append(key)

class Own(Scorer):
    entries = []

    def score(self, context):
        remember(len(MEMORY))
        self.entries.append(Entry())
        return {}
"""


def test_code_is_what_it_was_before_the_method_filled_what_its_file_holds(known_methods: None) -> None:
    codes = set()
    for _ in range(2):
        register("own", "mine", **NEEDS)(define(FILLED))
        method = create("own")
        for _ in range(2):
            method.score(None)  # type: ignore[attr-defined]
            codes.add(describe(method)["code_sha256"])
    assert len(codes) == 1


@pytest.mark.parametrize(
    ("cell", "is_noticed"),
    [
        ("def weigh(weight):\n    return 0.5", False),
        ("def weigh(weight):\n    return 0.25", True),
        ("FACTOR = 3", True),
        ("FACTOR = [2]", True),
        ("GAIN = 2", True),
        ("UNUSED = 2", False),
        ("Own.half = property(lambda self: 1)", True),
    ],
)
def test_what_is_bound_anew_after_the_method_was_created_counts(
    cell: str, is_noticed: bool, known_methods: None
) -> None:
    kind = register("own", "mine", **NEEDS)(define(OWN))
    before = describe(create("own"))
    exec(cell, kind.half.fget.__globals__)
    assert (describe(create("own")) != before) is is_noticed


def test_a_constant_in_the_place_of_a_filled_one_counts_as_it_is(known_methods: None) -> None:
    kind = register("own", "mine", **NEEDS)(define(OWN.replace("FACTOR = 2", "FACTOR = []")))
    file, before = kind.half.fget.__globals__, describe(create("own"))
    file["FACTOR"].append(1)
    assert describe(create("own")) == before
    file["FACTOR"] = [1]
    assert describe(create("own")) != before


@pytest.mark.parametrize("value", ["0.5", "0.25"])
def test_what_comes_into_the_file_after_the_method_was_created_is_in_its_code(
    value: str, known_methods: None
) -> None:
    helper = "def weigh(weight):\n    return 0.5\n"
    kind = register("own", "mine", **NEEDS)(define(OWN.replace(helper, "")))
    codes = [describe(create("own"))["code_sha256"]]
    exec(helper.replace("0.5", value), kind.half.fget.__globals__)
    codes.append(describe(create("own"))["code_sha256"])
    whole = hash_code(define(OWN))
    assert codes[0] not in (codes[1], whole)
    assert (codes[1] == whole) is (value == "0.5")


def test_what_was_bound_before_is_not_held_in_memory(known_methods: None) -> None:
    kind = register("own", "mine", **NEEDS)(define(OWN.replace("FACTOR = 2", "FACTOR = {1, 2}")))
    file = kind.half.fget.__globals__
    create("own")
    first = weakref.ref(file["FACTOR"])
    file["FACTOR"] = 2
    create("own")
    assert first() is None


def test_options_whose_types_are_names_that_are_not_there_are_taken_as_they_are(known_methods: None) -> None:
    options = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Literal

@dataclass(frozen=True)
class OwnOptions:
    norm: Literal["l1", "l2"] = "l1"
"""
    register("own", "mine", **NEEDS)(define(options + OWN + "    Options = OwnOptions\n", "__main__"))
    assert create("own", {"norm": "l2"}).options.norm == "l2"
    with pytest.raises(ImportanceError, match="unknown option 'nrm' of method 'own'; did you mean 'norm'"):
        create("own", {"nrm": "l2"})


def test_a_method_that_was_sent_has_the_code_that_it_had_there(known_methods: None) -> None:
    kind = define(OWN)
    sent = Method("own", "", "", "", kind, 1, **FLAGS)
    for code in ("as it was there", "as it was there later"):
        adopt(dataclasses.replace(sent, sent_code_sha256=code))
        assert describe(create("own"))["code_sha256"] == code
    with pytest.raises(ImportanceError, match=r"'own' is taken by a_users_module.Own; choose another name"):
        adopt(dataclasses.replace(sent, factory=Unregistered))


def test_options_that_can_change_are_refused() -> None:
    @dataclass
    class Changeable:
        x: int = 1

    class Mine(Unregistered):
        Options = Changeable

    with pytest.raises(ImportanceError, match="must be a frozen dataclass"):
        register("mine", "mine", **NEEDS)(Mine)
    assert "mine" not in list_methods()


def test_option_values_are_read_as_the_type_of_the_option() -> None:
    as_text = create("dirichlet", {"steps": "30", "lr": "1", "estimator": "point"})
    as_numbers = create("dirichlet", {"steps": 30.0, "lr": 1, "estimator": "point"})
    assert as_text.options == as_numbers.options
    assert describe(as_text) == describe(as_numbers)
    assert isinstance(as_numbers.options.steps, int)
    assert isinstance(as_numbers.options.lr, float)


@dataclass(frozen=True)
class ManyOptions:
    evaluations: int | str = 100
    k: int | None = None
    is_fast: bool = False
    sizes: tuple[int, ...] = (1, 2)


class WithManyOptions(Unregistered):
    Options = ManyOptions


@pytest.fixture
def known_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


@pytest.fixture
def many(known_methods: None) -> str:
    register("many", "has options of many types", **NEEDS)(WithManyOptions)
    return "many"


@pytest.mark.parametrize(
    ("option", "given", "read"),
    [
        ("evaluations", "30", 30),
        ("evaluations", 30.0, 30),
        ("evaluations", "auto", "auto"),
        ("k", "3", 3),
        ("k", None, None),
        ("k", "none", None),
        ("is_fast", "true", True),
        ("is_fast", "False", False),
        ("is_fast", True, True),
        ("sizes", (3,), (3,)),
    ],
)
def test_options_of_several_types_are_read_as_the_first_that_fits(
    many: str, option: str, given: Any, read: Any
) -> None:
    value = getattr(create(many, {option: given}).options, option)
    assert (value, type(value)) == (read, type(read))


@pytest.mark.parametrize(
    ("option", "given", "kinds"),
    [
        ("evaluations", 1.5, "a whole number or text"),
        ("k", "many", "none or a whole number"),
        ("is_fast", "yes", "true or false"),
        ("is_fast", 1, "true or false"),
    ],
)
def test_value_of_none_of_the_types_of_an_option_is_refused(
    many: str, option: str, given: Any, kinds: str
) -> None:
    expected = f"option {option!r} of method 'many' must be {kinds}, got {given!r}"
    with pytest.raises(ImportanceError, match=re.escape(expected)):
        create(many, {option: given})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("magnitude", {"norm": "l3"}, "norm must be 'l1' or 'l2', got 'l3'"),
        ("magnitude", {"norm": 1}, "option 'norm' of method 'magnitude' must be text, got 1"),
        (
            "dirichlet",
            {"steps": "many"},
            "option 'steps' of method 'dirichlet' must be a whole number, got 'many'",
        ),
        ("dirichlet", {"steps": 1.5}, "must be a whole number, got 1.5"),
        ("dirichlet", {"steps": True}, "must be a whole number, got True"),
        ("dirichlet", {"steps": float("inf")}, "must be a whole number, got inf"),
        ("dirichlet", {"lr": "nan"}, "option 'lr' of method 'dirichlet' must be a number, got 'nan'"),
        ("dirichlet", {"lr": None}, "must be a number, got None"),
        ("dirichlet", {"lr": 0}, "lr must be a number above 0, got 0"),
        ("dirichlet", {"steps": -1}, "steps must be at least 0, got -1"),
        ("dirichlet", {"n_samples": 0}, "n_samples must be at least 1, got 0"),
        ("dirichlet", {"estimator": "points"}, "did you mean 'point'"),
        ("taylor", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_option_values_that_cannot_be_used_are_refused(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImportanceError, match=re.escape(message)) as caught:
        create(name, options)
    assert "\n" not in str(caught.value)


def test_registered_methods_are_described_by_version_and_others_by_source() -> None:
    assert describe(create("magnitude")) == {"name": "magnitude", "version": 1, "options": {"norm": "l1"}}
    described = describe(Unregistered())
    assert described["name"] == "Unregistered"
    assert described["source_sha256"]


def test_meanings_come_from_the_attributes_of_the_options_and_their_bases() -> None:
    meanings = get_method("logistic-normal").meanings
    assert meanings["rank"].startswith("Of the part of the Gaussian's covariance that channels share; >= 0")
    assert meanings["lr"].endswith("falling to zero along a cosine; > 0.")  # of a base, over two lines
    assert "More by default than of the other families" in meanings["steps"]  # the base's is replaced

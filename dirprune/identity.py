"""What a thing is, as plain data: hashes for cache keys, and names with source hashes for callables."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SOURCE, STATE, CONTENT = "source_sha256", "state_sha256", "content_sha256"
OF_FILE = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
ARRAYS = (Tensor, np.ndarray, np.generic)
LAZY = (nn.UninitializedParameter, nn.UninitializedBuffer)
Recall = Callable[[Any, Callable[[Any], Any]], Any]


def digest(*parts: Any) -> str:
    """Return 32 hexadecimal digits that identify the parts in their order and with their types.

    Args:
        *parts: Bytes, numpy arrays (content, type and shape count) or anything JSON-able (the order of the
            keys of a mapping does not count, lists and tuples are the same).
    Raises:
        TypeError: If a part is none of these.
    """
    total = hashlib.sha256()
    for part in parts:
        content: bytes | memoryview
        if isinstance(part, bytes):
            kind, content = "bytes", part
        elif isinstance(part, np.ndarray):
            if part.dtype.hasobject:
                raise TypeError("an array of objects has no content that could be hashed")
            kind = f"array {part.dtype.str} {part.shape}"
            content = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data  # no copy of it
        else:
            kind, content = (
                "json",
                json.dumps(part, sort_keys=True, separators=(",", ":"), default=_to_dict).encode(),
            )
        total.update(f"{kind} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()[:32]


def _to_dict(part: Any) -> dict[str, Any]:
    if isinstance(part, Mapping):
        return dict(part)
    raise TypeError(f"expected bytes, a numpy array or something JSON-able, got a {type(part).__name__}")


def identify(target: str | Callable[..., Any]) -> dict[str, Any]:
    """Describe a named or given callable so that a change of it can be noticed later.

    What a callable carries are its defaults, closure, bound arguments and attributes; to its content belong
    also the tensors, arrays and modules that a function, its decorators' wrappers or a function of a class
    name in their files. Other functions and objects that it carries are not followed.

    Args:
        target: A name, a function, a class, a `functools.partial`, or an object that can be called.
    Returns:
        {"name"} of a name; otherwise {"module", "name", "source_sha256"}; "state_sha256" when the callable
        carries anything: plain values, and of all else the type; and "content_sha256" when tensors, arrays or
        modules are among it, as `keep_plain` has them. Studies of before know no content.
    """
    if isinstance(target, str):
        return {"name": target}
    if isinstance(target, functools.partial):
        described = identify(target.func)
        state, content = described.pop(STATE, None), described.pop(CONTENT, None)
        bound = [target.args, target.keywords]
        plain, whole = keep_plain(bound, _name_type), keep_plain(bound)
        described[STATE] = digest([state, *plain])
        return (
            described
            if content is None and whole == plain
            else {**described, CONTENT: digest([content, *whole])}
        )
    if inspect.ismethod(target):
        carried = getattr(target.__self__, "__dict__", {})
        return _add_content(target.__func__, *_describe(target.__func__, carried))
    if inspect.isroutine(target) or inspect.isclass(target):
        return identify_definition(target)
    return _add_content(type(target), *_describe(type(target), getattr(target, "__dict__", {})))


def compute_anew(value: Any, compute: Callable[[Any], Any]) -> Any:
    """Return what a function says of a value, and remember nothing."""
    return compute(value)


def identify_definition(definition: Any, recall: Recall = compute_anew) -> dict[str, Any]:
    """Identify a function or a class, see `identify`.

    Args:
        definition: The function or class.
        recall: Given a value and a function, returns what that says of the value, or said of it earlier.
    """
    described, plain, whole = recall(definition, _describe_definition)
    return _add_content(definition, described, plain, whole, recall)


def complete_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as it is recorded: that a callable carries no content is said, too.

    A record that says nothing of content is of an earlier version, which did not look at it.
    """
    return {CONTENT: None, **identity} if SOURCE in identity else dict(identity)


def _describe_definition(definition: Any) -> tuple[dict[str, Any], Any, Any]:
    return _describe(definition, _get_function_state(definition))


def _describe(definition: Any, carried: Any) -> tuple[dict[str, Any], Any, Any]:
    """Return an identity without content, and what is carried: with types instead of content, and with it."""
    described = {
        "module": getattr(definition, "__module__", None),
        "name": getattr(definition, "__qualname__", repr(type(definition))),
        SOURCE: hash_source(definition),
    }
    plain, whole = keep_plain(carried, _name_type), keep_plain(carried)
    return {**described, **({STATE: digest(plain)} if plain else {})}, plain, whole


def _add_content(
    definition: Any, described: Mapping[str, Any], plain: Any, whole: Any, recall: Recall = compute_anew
) -> dict[str, Any]:
    """Return an identity with the content of what is carried and of what the definition names."""
    named = _get_named_content(definition, recall)
    both = [whole, {name: recall(value, keep_plain) for name, value in named.items()}]
    has_content = both != [plain, keep_plain(named, _name_type)]
    return {**described, **({CONTENT: digest(both)} if has_content else {})}


def hash_source(definition: Any) -> str | None:
    """Return the hash of the source text; of the byte code where there is no text; None for compiled code.

    Args:
        definition: A class; a function, whose text is that below its decorators; or the code of one.
    """
    try:
        return digest(inspect.getsource(definition))
    except (OSError, TypeError):
        code = getattr(definition, "__code__", definition)
        return digest(_flatten_code(code)) if inspect.iscode(code) else None


def _flatten_code(code: CodeType) -> list[Any]:
    constants = [_flatten_code(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def _get_function_state(function: Any) -> Any:
    cells = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    defaults = list(getattr(function, "__defaults__", None) or ())
    keyword_defaults = getattr(function, "__kwdefaults__", None) or {}
    return [part for part in (cells, defaults, keyword_defaults) if part]


def _get_named_content(definition: Any, recall: Recall) -> dict[str, Any]:
    """Return the tensors, arrays and modules that a function, or one of a class, names in its file."""
    carried = vars(definition).values() if inspect.isclass(definition) else [definition]
    named: dict[str, Any] = {}
    for function in (layer for value in carried for layer in list_layers(value)):
        known = find_globals(function, recall) if inspect.isfunction(function) else {}
        for name, value in known.items():
            if isinstance(value, (*ARRAYS, nn.Module)):
                while named.setdefault(name, value) is not value:  # another file's of the same name
                    name += "'"
    return named


def list_layers(value: Any) -> list[Any]:
    """Return the function of a property or method, behind its decorators' wrappers, outermost first.

    Of anything else it is the value alone.
    """
    if isinstance(value, staticmethod | classmethod | MethodType):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, functools.cached_property):
        value = value.func
    layers = [value]
    if inspect.isroutine(value):
        inner = inspect.unwrap(value)  # fails if they go round in a circle
        while layers[-1] is not inner:
            layers.append(layers[-1].__wrapped__)
    return layers


def find_globals(function: FunctionType, recall: Recall = compute_anew) -> dict[str, Any]:
    """Return what a function, with those inside it, names of its file, in alphabetical order."""
    known = function.__globals__
    return {name: known[name] for name in recall(function.__code__, _list_names) if name in known}


def _list_names(code: CodeType) -> list[str]:
    names: set[str] = set()
    codes = [code]
    while codes:
        code = codes.pop()
        names.update(step.argval for step in dis.get_instructions(code) if step.opname in OF_FILE)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return sorted(names)


def keep_plain(value: Any, describe: Callable[[Any], Any] | None = None) -> Any:
    """Keep what JSON can say.

    Of a tensor or an array that is its content, hashed; of a parameter that is trained, which may be drawn
    anew with each start, its type and shape; of a module its type and its state: parameters, buffers,
    attributes and child modules, but not its mode and hooks; of bytes and sets their content, hashed; of
    anything else only its type's name, since its text may hold an address.

    Args:
        value: Anything.
        describe: Says what to keep of what is not plain instead.
    """
    describe = describe or _describe_content
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): keep_plain(item, describe) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [keep_plain(item, describe) for item in value]
    if inspect.isroutine(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return describe(value)


def _name_type(value: Any) -> str:
    return type(value).__qualname__


def _describe_content(value: Any, around: tuple[nn.Module, ...] = ()) -> Any:
    """Return what `keep_plain` says of a value that is not plain; not again of the modules around it."""
    if isinstance(value, ARRAYS):
        return _describe_array(value)
    if isinstance(value, bytes):
        return [_name_type(value), digest(value)]
    if isinstance(value, (set, frozenset)):
        return [_name_type(value), sorted(digest(keep_plain(item)) for item in value)]
    if not isinstance(value, nn.Module) or value in around:
        return _name_type(value)
    left_out = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}
    state = {name: item for name, item in vars(value).items() if name not in left_out}
    return [
        _name_type(value),
        keep_plain(state, functools.partial(_describe_content, around=(*around, value))),
    ]


def _describe_array(value: Tensor | np.ndarray | np.generic) -> list[Any]:
    """Return type and content; type and shape of what is trained or has no content here."""
    kind = str(value.dtype)
    if isinstance(value, Tensor) and value.is_nested:
        return [kind, *(_describe_array(part) for part in value.unbind())]
    if not (isinstance(value, nn.Parameter) and value.requires_grad):
        with suppress(NotImplementedError, TypeError, RuntimeError, ValueError):  # no data, or none in numpy
            hidden = [np.ma.getmaskarray(value)] if isinstance(value, np.ma.MaskedArray) else []
            return [kind, digest(to_array(value), *hidden)]
    return [kind, None if isinstance(value, LAZY) else list(value.shape)]


def to_array(values: Tensor | np.ndarray | np.generic) -> np.ndarray:
    """Return a tensor as a numpy array, widened to float32 where numpy has no such type."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = (values if values.layout == torch.strided else values.to_dense()).detach().cpu()
    values = (
        (values.dequantize() if values.is_quantized else values).resolve_conj().resolve_neg().contiguous()
    )
    return (values.float() if values.is_floating_point() and values.itemsize < 4 else values).numpy()

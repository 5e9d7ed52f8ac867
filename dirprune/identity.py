"""What a thing is, as plain data: hashes for cache keys, and names with source hashes for callables."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor


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
            content = memoryview(np.ascontiguousarray(part).reshape(-1).view(np.uint8))  # no copy of it
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

    Args:
        target: A name, a function, a class, a `functools.partial`, or an object that can be called.
    Returns:
        {"name"} of a name; otherwise {"module", "name", "source_sha256"}, and "state_sha256" when the
        callable carries plain values, tensors or arrays of its own: defaults, closure, bound arguments,
        attributes.
    """
    if isinstance(target, str):
        return {"name": target}
    if isinstance(target, functools.partial):
        described = identify(target.func)
        bound = [described.pop("state_sha256", None), keep_plain(target.args), keep_plain(target.keywords)]
        return {**described, "state_sha256": digest(bound)}
    if inspect.ismethod(target):
        state = keep_plain(getattr(target.__self__, "__dict__", {}))
        return _describe(target.__func__, state)
    if inspect.isroutine(target) or inspect.isclass(target):
        return _describe(target, _get_function_state(target))
    return _describe(type(target), keep_plain(getattr(target, "__dict__", {})))


def _describe(definition: Any, state: Any) -> dict[str, Any]:
    described = {
        "module": getattr(definition, "__module__", None),
        "name": getattr(definition, "__qualname__", repr(type(definition))),
        "source_sha256": _hash_source(definition),
    }
    return {**described, "state_sha256": digest(state)} if state else described


def _hash_source(definition: Any) -> str | None:
    """Return the hash of the source text; of the byte code where there is no text; None for compiled code."""
    try:
        return digest(inspect.getsource(definition))
    except (OSError, TypeError):
        code = getattr(definition, "__code__", None)
        return None if code is None else digest(_flatten_code(code))


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
    return [keep_plain(part) for part in (cells, defaults, keyword_defaults) if part]


def keep_plain(value: Any) -> Any:
    """Keep what JSON can say.

    Of a tensor or an array that is its content, hashed; of anything else only its type's name, since its text
    may hold an address.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): keep_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [keep_plain(item) for item in value]
    if isinstance(value, (Tensor, np.ndarray, np.generic)):
        with suppress(NotImplementedError, TypeError, RuntimeError):  # it has no data here, or none in numpy
            return [str(value.dtype), digest(to_array(value))]
        return [str(value.dtype), list(value.shape)]
    if inspect.isroutine(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return type(value).__qualname__


def to_array(values: Tensor | np.ndarray | np.generic) -> np.ndarray:
    """Return a tensor as a numpy array, widened to float32 where numpy has no such type."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = (values if values.layout == torch.strided else values.to_dense()).detach().cpu().contiguous()
    return (values.float() if values.is_floating_point() and values.itemsize < 4 else values).numpy()

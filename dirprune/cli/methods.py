"""What is known of the importance methods, for people."""

from __future__ import annotations

import textwrap

from dirprune.errors import ConfigurationError, suggest
from dirprune.importance import Method, Scorer, get_method, list_methods

WIDTH = 100


def format_methods(pattern: str = "*") -> str:
    """Return what is known of the methods whose names match a pattern with wildcards.

    Of a single one, that is also what its options mean.

    Raises:
        ConfigurationError: If there is none.
    """
    names = list_methods(pattern)
    if not names:
        raise ConfigurationError(
            f"no importance method matches {pattern!r}{suggest(pattern, list_methods())}"
        )
    return "\n\n".join(_format_method(get_method(name), len(names) == 1) for name in names)


def _format_method(method: Method, has_meanings: bool) -> str:
    is_selector = not issubclass(method.factory, Scorer)
    needs = (
        ["weights"]
        + ["calibration images"] * method.needs_data
        + ["gradients"] * method.needs_gradients
        + ["a seed"] * method.stochastic
        + ["an architecture ('dirprune prune' only)"] * is_selector
    )
    facts = {
        "paper": method.paper,
        "needs": ", ".join(needs),
        "costs": method.cost,
        "options": ", ".join(f"{name}={value}" for name, value in method.options.items()) or "none",
    }
    lines = [_wrap(f"{method.name}: ", method.summary, 4)]
    lines += [_wrap(f"    {label:9}", text) for label, text in facts.items() if text]
    if has_meanings:
        lines += [_wrap(f"      {name}: ", text, 8) for name, text in method.meanings.items()]
    return "\n".join(lines)


def _wrap(label: str, text: str, n_indented: int | None = None) -> str:
    """Return text behind a label in lines of at most `WIDTH` columns, by default below its beginning."""
    indent = " " * (n_indented or len(label))
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

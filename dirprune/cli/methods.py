"""What is known of the importance methods, for people."""

from __future__ import annotations

import textwrap

from dirprune.errors import ConfigurationError, suggest
from dirprune.importance import Method, Scorer, get_method, list_methods

WIDTH = 100


def format_methods(pattern: str = "*") -> str:
    """Return what is known of the methods whose names match a pattern with wildcards.

    Raises:
        ConfigurationError: If there is none.
    """
    names = list_methods(pattern)
    if not names:
        raise ConfigurationError(
            f"no importance method matches {pattern!r}{suggest(pattern, list_methods())}"
        )
    return "\n\n".join(_format_method(get_method(name)) for name in names)


def _format_method(method: Method) -> str:
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
    lines = [_wrap(f"{method.name}: ", method.summary)]
    lines += [_wrap(f"    {label:9}", text) for label, text in facts.items() if text]
    return "\n".join(lines)


def _wrap(label: str, text: str) -> str:
    """Return text behind a label in lines of at most `WIDTH` columns."""
    indent = " " * (len(label) if label.startswith(" ") else 4)
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=label,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

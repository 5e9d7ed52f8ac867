"""The page's own files: modules, style and markup."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files

ASSETS = (".js", ".css")
_PLACE = re.compile(r"\{\{ (\w+) \}\}")


def list_assets() -> list[str]:
    """Return the names of the page's modules and style."""
    return sorted(item.name for item in files(__package__).iterdir() if item.name.endswith(ASSETS))


@cache
def read_asset(name: str) -> str:
    """Return the text of one of the page's files."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def embed_json(data: object) -> str:
    """Return JSON that may stand inside a script element, whatever texts it holds.

    Raises:
        ValueError: If it holds a number that is not finite, which JSON cannot say.
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def fill_page(title: str, settings: Mapping[str, object], **parts: str) -> str:
    """Return the page's markup with its places filled.

    Args:
        title: Shown as text, whatever it holds.
        settings: Labels, colours and other constants that the modules read.
        parts: Markup of the places that are left: `head` with style and scripts, `nav` and `studies`.
    """
    values = {"title": escape(title), "settings": embed_json(settings), **parts}
    return _PLACE.sub(lambda place: values[place[1]], read_asset("page.html"))

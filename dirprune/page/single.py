"""The page as one file that works from a disk, offline: its modules joined into one script.

Browsers do not load modules from files, so that each module becomes a function that returns what it exports:
names stay apart as they do in modules. Only the forms of import and export that the page uses are known; any
other is an error.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256

from dirprune.page.files import embed_json, fill_page, read_asset

_IMPORT = re.compile(r'^import \{([^}]+)\} from "\./([\w-]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|class|function)\b\*? ?(\w+))", re.MULTILINE)
_LEFT = re.compile(r"^\s*(?:import|export)\b.*|\bimport\(.*", re.MULTILINE)


def join_modules(entry: str, read: Callable[[str], str] = read_asset) -> str:
    """Return one script that does what a module does with all that it imports.

    Args:
        entry: Name of the module to begin with.
        read: Returns the text of a module by its name.
    Raises:
        ValueError: If modules import each other in a circle, or one imports or exports in another form than
            `import { a, b } from "./c.js";` and `export` before a const, class or function.
    """
    joined: dict[str, str] = {}
    _join_(entry, read, joined, ())
    return "".join(joined.values())


def _join_(name: str, read: Callable[[str], str], joined: dict[str, str], above: tuple[str, ...]) -> None:
    """Add a module to `joined` after those that it imports; `above` are those that import it."""
    if name in above:
        raise ValueError(f"expected modules without circles, got {' -> '.join((*above, name))}")
    if name in joined:
        return
    text = read(name)
    for _, imported in _IMPORT.findall(text):
        _join_(imported, read, joined, (*above, name))
    exported = _EXPORT.findall(text)
    body = _IMPORT.sub(lambda found: f"const {{{found[1]}}} = {_variable(found[2])};", text)
    body = _EXPORT.sub("", body)
    if left := _LEFT.search(body):
        raise ValueError(f"{name}: {left[0].strip()!r} is a form of import or export that cannot be joined")
    if above:
        result = f"return {{ {', '.join(exported)} }};"
        joined[name] = f"const {_variable(name)} = (() => {{\n{body}\n{result}\n}})();\n"
    else:  # the first module may wait, as only the top of a module can
        joined[name] = body


def _variable(name: str) -> str:
    return "module_" + re.sub(r"\W", "_", name.removesuffix(".js"))


@cache
def _make_head(entry: str) -> str:
    """Return style and script, and the policy under which nothing else runs and nothing is loaded."""
    style, script = read_asset("page.css"), join_modules(entry)
    if "</script" in script or "<!--" in script:
        raise ValueError(f"{entry} cannot stand in a page: its modules hold markup of scripts or comments")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "img-src blob: data:; base-uri 'none'; form-action 'none'"
    )
    return (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<style>{style}</style>\n"
        f'<script type="module">{script}</script>'
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def make_single_page(title: str, settings: Mapping[str, object], study: Mapping[str, object]) -> str:
    """Return the page of one study with everything inside it.

    Args:
        title: Shown as text, whatever it holds.
        settings: As `fill_page` takes them.
        study: What `stored.js` reads; finite numbers, None where there is none.
    """
    data = f'<script type="application/json" id="study">{embed_json(study)}</script>'
    return fill_page(title, settings, head=f"{data}\n{_make_head('main_stored.js')}", nav="", studies="")

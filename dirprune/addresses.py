"""Addresses of databases, servers and stores as users type them, shown without the secrets that they hold.

Passwords are typed as they are, "/", "?", "#" or "@" unescaped. An address is therefore not taken apart by
the rules of URIs, by which a password ends at such a character, but so that a doubtful part counts as secret.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

HIDDEN = "..."
SECRET_WORDS = ("pass", "pwd", "secret", "token", "key", "sig", "cred", "auth", "odbc")
"""An option of an address whose name holds one of these holds a secret, such as X-Amz-Signature."""
MIN_SECRET = 4
"""Characters from which a secret is hidden inside of words, too: a shorter one the dots would give away."""
_CONTAINERS = ("abfs", "abfss", "az")  # abfs://container@account.dfs.core.windows.net
_HOST = r"(?:\[[^\]@]*\]|[^:@]*)"


@dataclass(frozen=True)
class _Parts:
    """An address: `start`, `user`, ":", `password`, "@", `place`, `options`.

    Attributes:
        start: Scheme and "://", if there is one.
        user: Before the password; also one that stands alone.
        password: Empty where there is none.
        place: Host, path and the options that hold no secret; empty where a password may end in it.
        options: The value of the first option that holds a secret, and all that follows.
    """

    start: str
    user: str
    password: str
    place: str
    options: str


def _split(address: str) -> _Parts:
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    user, password, place = "", "", rest
    if _has_login(scheme, rest):
        login, at, place = rest.rpartition("@")
        if not at or re.search(r"[?#]", login):  # which "@" ends the password cannot be told
            login, place = rest, ""
        user, _, password = login.partition(":")
    for option in re.finditer(r"[?#&;]([^=?#&;]*)=", place):
        if any(word in urllib.parse.unquote(option[1]).lower() for word in SECRET_WORDS):
            return _Parts(scheme + mark, user, password, place[: option.end()], place[option.end() :])
    return _Parts(scheme + mark, user, password, place, "")


def _has_login(scheme: str, rest: str) -> bool:
    """Whether what follows a scheme begins with a user or a password instead of a host."""
    head = rest.partition("/")[0]
    if re.fullmatch(_HOST, head) or (scheme in _CONTAINERS and ":" not in head):
        return False
    return "@" in rest or re.fullmatch(_HOST + r":\d{0,5}", head) is None


def holds_login(address: str) -> bool:
    """Whether an address names a user, holds a password or an option that is a secret."""
    parts = _split(address)
    return bool(parts.user or parts.password or parts.options)


def describe_address(address: str) -> str:
    """Return an address without user and password, and with dots for the options that are secrets."""
    parts = _split(address)
    return f"{parts.start}{parts.place or (HIDDEN if holds_login(address) else '')}{_dots(parts.options)}"


def mask_secrets(address: str) -> str:
    """Return an address with dots for its secrets, for a command into which the user writes them."""
    parts = _split(address)
    login = f"{parts.user}:{HIDDEN}" if parts.password else parts.user
    place = parts.place or (HIDDEN if parts.user or parts.password else "")
    return f"{parts.start}{login}{'@' if login else ''}{place}{_dots(parts.options)}"


def _dots(secret: str) -> str:
    return HIDDEN if secret else ""


def hide_secrets(text: str, address: str = "") -> str:
    """Return a text with dots for the secrets of an address, and each address in it as it is described.

    Args:
        text: What a library said, for example.
        address: The one in use. A library may take it apart by the rules of URIs, escape or decode it, and
            name what it made of the password: each word of its secrets is hidden as well.
    """
    parts = _split(address)
    typed = (parts.password, parts.options, *re.split("[&;]", parts.options))
    secrets = {form for secret in typed for form in (secret, urllib.parse.unquote(secret))}
    secrets |= {word for secret in secrets for word in re.findall(r"\w+", secret)}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        alone = re.escape(secret) if len(secret) >= MIN_SECRET else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(alone, HIDDEN, text, flags=re.IGNORECASE)
    return re.sub(r"[A-Za-z][\w+.-]*://\S*[@=]\S*", lambda found: describe_address(found[0]), text)

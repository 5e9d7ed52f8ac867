"""Addresses of databases, servers and stores as users type them, shown without the secrets that they hold.

Passwords are typed as they are, "/", "?", "#" or "@" unescaped. By the rules of URIs a password would end at
such a character; here whatever stands between a ":" and an "@" may be one, unless what is before it can only
be a place.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

HIDDEN = "..."
MIN_SECRET = 4
"""Characters from which a secret is hidden inside of words, too: a shorter one the dots would give away."""
_SECRET_NAME = re.compile(  # "auth", "key" and "sig" where a word ends, not in author and keyword
    "(?i:pass|pwd|secret|token|cred|odbc|signature|authoriz)|(?i:auth|key|sig)(?![a-z])"
)
_NAMES_OF_FILES = ("passfile", "sslkey", "ssl_key")
"""Options whose value is where a secret lies."""
_FOLDERS = ("", "file", "memory", "s3", "gs", "gcs", "az", "abfs", "abfss")
"""Schemes of paths and object stores: after a bucket's name ":" and "@" are as good as any character."""
_CONTAINERS = ("abfs", "abfss", "az")  # abfs://container@account.dfs.core.windows.net
_HOST = r"(?:\[[^\]@]*\]|[^:@,/?#]*)(?::\d{0,5})?"
_HOSTS = re.compile(rf"{_HOST}(?:,{_HOST})*")
_OPTION = r"[A-Za-z][\w.-]*="
_PORT = rf":\d{{1,5}}(?=,|/[A-Za-z][\w./-]*\?{_OPTION}[\w/])"  # "12345/" may begin a password as well
_NAMED_HOST = rf"(?:\[[\da-fA-F:]*\]|[\w.-]+)(?:{_PORT})?"
_PLACE_WITH_OPTIONS = re.compile(
    rf"(?:(.*?)@)??({_NAMED_HOST}(?:,{_NAMED_HOST})*(?:/(?(1)[^?#:@]|[^?#:])*)?\?{_OPTION}.*)", re.DOTALL
)
"""A login, if there is one, and a place that has options. A password that holds such a place is cut there."""


@dataclass(frozen=True)
class _Parts:
    """An address: `start`, `user`, ":", `password`, "@", `place`, `options`.

    Attributes:
        start: Scheme and "://", if there is one.
        user: Before the password; also one that stands alone.
        password: Empty where there is none.
        is_doubtful: Whether the user may as well be a host, and the password its port and a path.
        place: Host, path and the options that hold no secret; empty where a password may end in it.
        options: The value of the first option that holds a secret, and all that follows: a secret may hold
            an unescaped "&".
    """

    start: str
    user: str
    password: str
    is_doubtful: bool
    place: str
    options: str


def _split(address: str) -> _Parts:
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    login, place = _split_login(scheme.lower(), rest)
    user = re.match(r"(?:\[[^\]@]*\]|[^:?#])*", login)[0]  # type: ignore[index]  # matches nothing, too
    password = login[len(user) + 1 :]
    is_doubtful = bool(password) and scheme not in _FOLDERS and _HOSTS.fullmatch(_head(rest)) is not None
    options = ""
    for option in re.finditer(r"[?#&;]([^=?#&;]*)=", place):
        name, value = (urllib.parse.unquote(text) for text in (option[1], place[option.end() :]))
        is_secret = _SECRET_NAME.search(name) and name.lower() not in _NAMES_OF_FILES
        if is_secret or re.match(r"[^?#&;]*:.*@", value, re.DOTALL):
            place, options = place[: option.end()], place[option.end() :]
            break
    return _Parts(scheme + mark, user, password, is_doubtful, place, options)


def _head(rest: str) -> str:
    """Return what is before the path and the options, by the rules of URIs."""
    return re.split("[/?#]", rest, maxsplit=1)[0]


def _split_login(scheme: str, rest: str) -> tuple[str, str]:
    """Return what is or may be user and password in what follows a scheme, and the place behind it."""
    head = _head(rest)
    is_file = scheme.partition("+")[0] == "sqlite" and rest.startswith("/")
    if is_file or (scheme in _CONTAINERS and ":" not in head):
        return "", rest
    if found := _PLACE_WITH_OPTIONS.fullmatch(rest):
        return found[1] or "", found[2]
    if "@" not in rest:
        is_place = scheme.startswith("databricks") or _HOSTS.fullmatch(head)
        return ("", rest) if is_place else (rest, "")
    if not re.search(":.*@", rest, re.DOTALL) or (scheme in _FOLDERS and ":" not in head):
        user, at, _ = head.rpartition("@")
        return user, rest[len(user + at) :]
    login, _, place = rest.rpartition("@")
    return (rest, "") if re.search("[?#]", login) else (login, place)  # which "@" ends it cannot be told


def holds_login(address: str) -> bool:
    """Whether an address names a user, holds a password or an option that is a secret, or may do so."""
    parts = _split(address)
    return bool(parts.user or parts.password or parts.options)


def holds_password(address: str) -> bool:
    """Whether an address holds a password or an option that is a secret, or may do so."""
    parts = _split(address)
    return bool(parts.password or parts.options)


def is_doubtful(address: str) -> bool:
    """Whether all that looks like a login in an address may be its host, port and path: http://host:80/a@b."""
    parts = _split(address)
    return parts.is_doubtful and not parts.options


def describe_address(address: str) -> str:
    """Return an address without user and password, and with dots for the options that are secrets."""
    parts = _split(address)
    if parts.is_doubtful:
        return mask_secrets(address)
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
        text: What a library said, and no sentence of ours: a password may be one of its words.
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

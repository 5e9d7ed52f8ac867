"""Addresses are shown without their secrets, whatever characters a password has, as it is or escaped."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest
import sqlalchemy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dirprune.addresses import describe_address, hide_secrets, holds_login, holds_password, mask_secrets
from dirprune.errors import ConfigurationError, TrackingError, one_line
from dirprune.remote import RemoteFolder, refuse_secret
from dirprune.server import preflight
from dirprune.tracking import check_server, ui_command
from dirprune.tuning.storage import describe_url

FIRST, LAST = "Xyzzy", "Plugh"
SPECIAL = "/?#@:&=;%+[]{}()<>'\\\"!$*,. \t|^`~-_0"
PASSWORDS = st.text(SPECIAL, max_size=6).map(lambda middle: f"{FIRST}{middle}{LAST}")
EDGES = st.text(SPECIAL, max_size=3)


@st.composite
def secret_addresses(draw: st.DrawFn) -> str:
    """Addresses with a secret between `FIRST` and `LAST`, at any place where one may stand."""
    secret = draw(EDGES) + draw(PASSWORDS) + draw(EDGES)
    secret = quote(secret, safe="") if draw(st.booleans()) else secret
    scheme = draw(st.sampled_from(["http", "https", "postgresql", "postgresql+psycopg", "mysql", "s3", "gs"]))
    user = draw(st.sampled_from(["", "me", "me@corp.example", "12345"]))
    host = draw(st.sampled_from(["host", "host:5432", "[::1]:80", "bucket.example"]))
    name = draw(st.sampled_from(["password", "sslpassword", "X-Amz-Signature", "secret_key", "access_key"]))
    return draw(
        st.sampled_from(
            [
                f"{scheme}://{user}:{secret}@{host}/path",
                f"{scheme}://{user}:12345/{secret}@{host}",
                f"{scheme}://{user}:{secret}@{host}/db?connect_timeout=3",
                f"{scheme}://{host}/path?x=1&{name}={secret}",
                f"{scheme}://{user}@{host}/path?{name}={secret}&x=1",
            ]
        )
    )


def assert_hidden(*texts: str) -> None:
    for text in texts:
        assert FIRST.lower() not in text.lower()
        assert LAST.lower() not in text.lower()


@pytest.mark.slow
@given(secret_addresses())
@settings(deadline=None, max_examples=300)
@example(f"s3://KEY:12345/{FIRST}/{LAST}@bucket")
@example(f"http://me:{FIRST}[{LAST}@host:5000")
@example(f"http://me:{FIRST}/{LAST}")
@example(f"postgresql://me:@{FIRST}/!@{LAST}@host/db?connect_timeout=3")
def test_no_text_about_an_address_holds_its_secret(address: str) -> None:
    assert holds_login(address)
    assert holds_password(address)
    said = [f"cannot connect to {address}!", f"unknown option in {address!r}, {quote(address)}"]
    for take_apart in (lambda: urlsplit(address).port, lambda: sqlalchemy.make_url(address)):
        try:
            said.append(repr(take_apart()))
        except (ValueError, sqlalchemy.exc.ArgumentError) as error:
            said.append(str(error))
    assert_hidden(
        describe_address(address),
        mask_secrets(address),
        ui_command(address),
        describe_url(address),
        *(hide_secrets(text, address) for text in said),
        *(one_line("x" * n + text, address=address) for text in said for n in range(270, 300, 5)),
    )


@given(secret_addresses())
@settings(deadline=None, max_examples=100)
def test_storage_with_a_secret_in_its_address_is_refused_without_it(address: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RemoteFolder(address).check()
    assert_hidden(str(refused.value))


@pytest.mark.parametrize("middle", ["/", "?", "#", "@", "/a@b/", "[", ":", "%2F", " "])
@pytest.mark.parametrize("scheme", ["http", "postgresql", "nosuch", "sqlite"])
def test_store_that_cannot_be_used_is_named_without_its_password(scheme: str, middle: str) -> None:
    address = f"{scheme}://me:{FIRST}{middle}{LAST}@127.0.0.1:1/mlflow"
    with pytest.raises(TrackingError) as refused:
        check_server(address)
    assert_hidden(str(refused.value))
    if scheme != "http":
        with pytest.raises(TrackingError) as refused:
            preflight.check_store(address)
        assert_hidden(str(refused.value))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("postgresql://me:x/y@host/db?sslmode=require", "postgresql://host/db?sslmode=require"),
        ("postgresql://host/db?sslmode=a&password=b&c=d", "postgresql://host/db?sslmode=a&password=..."),
        ("http://me@corp.example:x@host:5000", "http://host:5000"),
        ("http://me:x?y@host", "http://..."),
        ("me:x@host:5000", "host:5000"),
        ("s3://KEY:12345/x@bucket/y", "s3://bucket/y"),
        ("abfs://me:x@account/y", "abfs://account/y"),
        ("mysql+pymysql://me:x@db/x?ssl_ca=/etc/ca@2024.pem", "mysql+pymysql://db/x?ssl_ca=/etc/ca@2024.pem"),
        ("postgresql://me:x@h1:1,h2:2/db?target=me@lab", "postgresql://h1:1,h2:2/db?target=me@lab"),
        ("postgresql://mlflow:mlflow@db/mlflow", "postgresql://db/mlflow"),
        ("http://host:5000/team@corp", "http://host:...@corp"),
        ("mssql+pyodbc://CORP/me:x@host/db", "mssql+pyodbc://CORP/me:...@host/db"),
        ("http://host/?url=postgresql://me:x@h/db", "http://host/?url=..."),
        ("http://host/?url=postgresql%3A%2F%2Fme%3Ax%40h", "http://host/?url=..."),
        ("http://host/#/a?token=x:y@z", "http://host/:...@..."),
        ("http://host/me@lab?apiKey=x:y@z", "http://host/me@lab?apiKey=..."),
        (
            "postgresql://host/db?sslkey=/home/me/key&password=x",
            "postgresql://host/db?sslkey=/home/me/key&password=...",
        ),
        ("https://host/x?AWSAccessKeyId=x", "https://host/x?AWSAccessKeyId=..."),
    ],
)
def test_what_is_no_secret_is_shown(typed: str, shown: str) -> None:
    assert describe_address(typed) == shown


@pytest.mark.parametrize(
    "address",
    [
        "http://host:5000/mlflow",
        "https://[::1]:5000",
        "postgresql:///db?host=/var/run",
        "sqlite:////home/me@lab/a:b/mlflow.db?timeout=3",
        "s3://bucket/2026-01-01T10:00/me@lab",
        "abfs://container@account.example/x",
        "postgresql://h1:5432,h2:5432/db",
        "postgresql://db:5432/x?application_name=me@lab",
        "postgresql://db/me@lab",
        "databricks://scope:prefix",
        "http://host:5000#/experiments",
        "http://host:5000?x=1",
        "http://host/x?author=a&keyword=b&design=c&user=me@corp",
        "sqlite:////home/a:b/me@lab.db",
        "localhost:5000",
        "/data/a:b@c",
        "./mlruns",
        "EDIT-ME",
        "",
    ],
)
def test_addresses_without_a_secret_are_shown_as_they_are(address: str) -> None:
    assert not holds_login(address)
    assert not holds_password(address)
    assert describe_address(address) == mask_secrets(address) == hide_secrets(address) == address


def test_a_user_is_no_password() -> None:
    for address in ("postgresql://me@host/db?passfile=/home/me/pass", "http://me@corp.example@host:5000"):
        assert not holds_password(address)


def test_a_command_keeps_the_user_and_has_dots_for_the_password() -> None:
    assert mask_secrets("postgresql://me:x/y@host/db") == "postgresql://me:...@host/db"
    assert mask_secrets("postgresql://mlflow@host/mlflow") == "postgresql://mlflow@host/mlflow"


def test_what_may_be_a_port_and_a_path_is_no_reason_to_refuse_data() -> None:
    refuse_secret("http://host:8080/sets@2024", "--data")
    for address in ("http://me:x@host/sets", "http://host:8080/sets@2024?token=x", "s3://KEY:12345/x@bucket"):
        with pytest.raises(ConfigurationError, match="expected --data without a password"):
            refuse_secret(address, "--data")


def test_a_password_does_not_hide_words_of_our_own_sentences() -> None:
    address = "postgresql://mlflow:MLflow@db/mlflow"
    assert one_line(ValueError("no mlflow"), address=address) == "no ..."
    assert one_line(TrackingError("install the MLflow that made it"), address=address) == (
        "install the MLflow that made it"
    )


def test_a_short_password_does_not_take_words_apart() -> None:
    said = hide_secrets("timeout: me:t@host refused, port 't'", "postgresql://me:t@host/db")
    assert said == "timeout: me:...@host refused, port '...'"

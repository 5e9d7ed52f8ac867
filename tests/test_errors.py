"""What a user reads of an exception: one line."""

from __future__ import annotations

import pytest
import sqlalchemy

from dirprune.errors import one_line, suggest


@pytest.mark.parametrize(
    ("error", "text", "with_type"),
    [
        (ValueError("first\nsecond"), "first second", "ValueError: first second"),
        (ValueError("\n  \n  indented\n"), "indented", "ValueError: indented"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError(" \n "), "ValueError", "ValueError"),
        ("timed out", "timed out", "str: timed out"),
    ],
)
def test_errors_become_one_line_or_the_name_of_their_type(error: object, text: str, with_type: str) -> None:
    assert one_line(error) == text
    assert one_line(error, has_type=True) == with_type


def test_a_line_has_300_characters_at_most() -> None:
    assert one_line(ValueError("x" * 1000)) == "x" * 300
    assert len(one_line(ValueError("x" * 1000), has_type=True)) == 300


@pytest.mark.parametrize(
    ("address", "statement", "said"),
    [
        ("sqlite:////proc/none/trials.db", "SELECT 1", "unable to open database file"),
        ("sqlite://", "SELECT a FROM absent WHERE b = :b", "no such table: absent"),
    ],
)
def test_of_a_database_only_its_own_words_are_told(address: str, statement: str, said: str) -> None:
    engine = sqlalchemy.create_engine(address)
    with pytest.raises(sqlalchemy.exc.SQLAlchemyError) as raised, engine.connect() as connection:
        connection.execute(sqlalchemy.text(statement), {"b": 1})
    assert "https://sqlalche.me" in str(raised.value)
    assert one_line(raised.value) == said
    assert one_line(RuntimeError(f"failed: {raised.value}")) == f"failed: {said}"


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all() -> None:
    assert suggest("tailor", ["taylor", "fisher"]) == "; did you mean 'taylor'? known: fisher, taylor"
    assert suggest("zzz", ["taylor"]) == "; known: taylor"
    assert suggest("zzz", []) == "; known: none"
    assert suggest("resnet21", ["resnet20", "resnet32", "vgg16"]).startswith("; did you mean 'resnet20'?")


def test_one_line_repeats_no_password_of_a_url() -> None:
    error = OSError("no answer from http://me:hunt@er2@host:5000/api and sqlite:///a@b.db")
    assert one_line(error) == "no answer from http://host:5000/api and sqlite:///a@b.db"

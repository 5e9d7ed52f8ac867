"""What is told of an MLflow that fails: one line with what is away, why, and what happens next."""

from __future__ import annotations

import http.server
import logging
import re
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dirprune.records.folder import StudyFolder
from dirprune.tracking.outage import Outage
from dirprune.tracking.server import prepare_environment_
from tests.tracking.test_server import free_port, serving

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


class _Overloaded(http.server.BaseHTTPRequestHandler):
    """Answer as a proxy does whose server is away."""

    def do_POST(self) -> None:
        self.send_error(503)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Refusing(_Overloaded):
    def do_POST(self) -> None:
        body = b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}'
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Dying(_Overloaded):
    """Close the connection without a word, as a server does that is killed."""

    def do_POST(self) -> None:
        self.close_connection = True


def fail_at(uri: str, monkeypatch: pytest.MonkeyPatch) -> Exception:
    """Return what MLflow's client raises at a server, with the patience that a study has."""
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    prepare_environment_()
    with pytest.raises(MlflowException) as raised:
        MlflowClient(uri).search_experiments(max_results=1)
    return raised.value


def tell(uri: str, error: Exception, caplog: pytest.LogCaptureFixture) -> str:
    """Return the one line in which a failure is told, however often it comes."""
    outage = Outage(uri, StudyFolder(Path("output/my study")))
    with caplog.at_level(logging.WARNING, "dirprune.tracking"):
        for _ in range(3):
            outage.begin(error)
    (record,) = caplog.records
    assert "\n" not in record.message
    return record.message


def test_a_server_that_is_away_is_told_without_the_words_of_libraries_or_a_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"127.0.0.1:{free_port()}"
    uri = f"http://me:hunter2@{place}"
    assert re.fullmatch(
        rf"MLflow at http://{place} has not answered since {TIME} \(Connection refused\); the study goes on "
        r"and nothing is lost: its own records keep all, and it is sent when MLflow is back, or by "
        rf"dirprune sync 'output/my study' --tracking-uri http://me:\.\.\.@{place}",
        tell(uri, fail_at(uri, monkeypatch), caplog),
    )


@pytest.mark.parametrize(
    ("error", "said", "when"),
    [
        (TimeoutError("timed out"), r"has not answered since TIME \(timed out\)", " when MLflow is back"),
        (ValueError("no"), r"has not taken everything since TIME \(ValueError: no\)", ""),
    ],
)
def test_an_outage_at_the_end_says_what_is_missing_and_which_command_sends_it(
    error: Exception, said: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("http://host:5000", StudyFolder(Path("output/my study")))
    missing = ["5 trials", "the study's run with its files and models"]
    with caplog.at_level(logging.WARNING, "dirprune.tracking"):
        for _ in range(3):
            outage.begin(error, "has ended", missing)
    (record,) = caplog.records
    assert re.fullmatch(
        rf"MLflow at http://host:5000 {said.replace('TIME', TIME)}; the study has ended and nothing is lost: "
        r"its own records keep all; not in MLflow: 5 trials, the study's run with its files and models, "
        rf"which dirprune sync 'output/my study' --tracking-uri http://host:5000 sends{when}",
        record.message,
    )
    assert outage.missing == missing
    outage.end()
    assert outage.missing == []


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (_Dying, r"has not answered since TIME \(Remote end closed connection without response\);"),
        (_Overloaded, r"has not answered since TIME \(too many 503 error responses\);"),
        (
            _Refusing,
            r"has not taken everything since TIME \(RestException: PERMISSION_DENIED: Permission denied\);",
        ),
    ],
)
def test_a_server_that_answers_with_an_error_is_told_by_it(
    handler: type[_Overloaded], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(handler) as port:
        uri = f"http://127.0.0.1:{port}"
        line = tell(uri, fail_at(uri, monkeypatch), caplog)
    assert re.search(said.replace("TIME", TIME), line)


def test_a_host_without_a_name_server_and_a_file_that_cannot_be_read_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = "http://nosuchhost.invalid:5000"
    error = fail_at(uri, monkeypatch)
    line = tell(uri, error, caplog)
    assert re.search(r"has not answered since .* \(.*(Name or service not known|name resolution)\);", line)
    caplog.clear()
    line = tell(uri, FileNotFoundError(2, "No such file or directory", "front.csv"), caplog)
    assert re.search(r"has not taken everything since .* \(No such file or directory\);", line)


def test_each_outage_is_told_and_its_end_and_no_end_without_one(caplog: pytest.LogCaptureFixture) -> None:
    folder = StudyFolder(Path("output/lenet"))
    outage = Outage("http://host:5000", folder)
    with caplog.at_level(logging.WARNING, "dirprune.tracking"):
        outage.end()
        for _ in range(2):
            outage.begin(TimeoutError("timed out"))
            outage.end()
            outage.end()
    lines = [record.message for record in caplog.records]
    assert [line.partition(" since ")[0] for line in lines] == [
        "MLflow at http://host:5000 has not answered",
        "MLflow at http://host:5000 is back",
    ] * 2

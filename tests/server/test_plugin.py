"""Who gets the page: the plugin without torch, behind a login, and under another path."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.server.conftest import ADMIN, PASSWORD, track_studies
from tests.tracking.mlflow_process import MlflowServer

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in (ROOT / "dirprune/page").iterdir() if path.suffix in (".css", ".js"))


def ask(address: str, login: str | None = None, body: dict[str, str] | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if login is not None:
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.slow
def test_the_plugin_works_where_torch_ray_optuna_and_moocore_are_missing() -> None:
    code = """
import sys
for name in ("torch", "torchvision", "ray", "optuna", "moocore", "shap"):
    sys.modules[name] = None  # makes `import name` raise ImportError
from dirprune.server.plugin import create_app
from mlflow.server import app
create_app()
answer = app.test_client().get("/pareto")
assert answer.status_code == 200, answer.status
print(answer.headers["Content-Security-Policy"])
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "script-src 'self'" in result.stdout


@pytest.mark.slow
def test_the_page_works_below_a_path_of_its_own() -> None:
    code = """
import os
os.environ["_MLFLOW_STATIC_PREFIX"] = "/tracking"
from dirprune.server.plugin import create_app
from mlflow.server import app
create_app()
client = app.test_client()
print(client.get("/tracking/pareto").status_code, client.get("/tracking/pareto/page.js").status_code)
print(client.get("/tracking/pareto/").headers["Location"])
print(client.get("/tracking/pareto/plugin.py").status_code)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["200", "200", "/tracking/pareto", "404"]


@pytest.mark.slow
def test_without_a_login_nothing_is_shown(guarded_server: MlflowServer) -> None:
    for path in ("/pareto", "/pareto/", *(f"/pareto/{name}" for name in FILES)):
        assert ask(f"{guarded_server.uri}{path}")[0] == 401
        assert ask(f"{guarded_server.uri}{path}", f"{ADMIN}:wrong")[0] == 401
    assert ask(f"{guarded_server.uri}/pareto", f"{ADMIN}:{PASSWORD}")[0] == 200


@pytest.mark.slow
def test_a_user_who_may_only_read_sees_the_front_and_an_anonymous_one_does_not(
    guarded_server: MlflowServer, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    reader = {"username": "reader", "password": "another-long-password"}
    create = f"{guarded_server.uri}/api/2.0/mlflow/users/create"
    assert ask(create, f"{ADMIN}:{PASSWORD}", reader)[0] == 200
    track_studies(guarded_server.uri, tmp_path)
    context = browser.new_context(http_credentials=reader)
    page = context.new_page()
    page.goto(f"{guarded_server.uri}/pareto?study=5ca1ab1e")
    expect(page.locator("#count")).to_contain_text("24 of 24 trials", timeout=30_000)
    context.close()
    anonymous = browser.new_context()
    answer = anonymous.request.get(f"{guarded_server.uri}/pareto")
    assert answer.status == 401
    anonymous.close()

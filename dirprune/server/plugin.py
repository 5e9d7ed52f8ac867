"""MLflow's server with the Pareto page: factories for `mlflow server --app-name`.

The page reads everything through MLflow's own API from the visitor's browser, so that whatever the server
refuses a visitor there is refused here too. This module only hands out the page's files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, abort, redirect

from dirprune.page import fill_page, list_assets, read_asset
from dirprune.records.appearance import COLOURS, LABELS

if TYPE_CHECKING:
    from fastapi import FastAPI
    from werkzeug.wrappers import Response as AnyResponse

INTERVAL_MS = 4000
_TYPES = {"js": "text/javascript", "css": "text/css"}
_HEAD = """<link rel="stylesheet" href="pareto/page.css">
<script type="module" src="pareto/main_live.js"></script>"""
_NAVIGATION = '<nav><a href="./">MLflow</a></nav>'
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def create_app(app: Flask | None = None) -> FastAPI:
    """Return MLflow's server with the page at `/pareto`, for everyone who reaches it.

    Args:
        app: MLflow's own application; None: the one of this process.
    """
    from mlflow.server.fastapi_app import create_fastapi_app

    application = _choose(app)
    _add_page_(application)
    return create_fastapi_app(application)


def create_app_with_auth(app: Flask | None = None) -> Flask | FastAPI:
    """Return the same behind MLflow's basic-auth: a visitor without a login is refused everywhere.

    Args:
        app: MLflow's own application; None: the one of this process.
    """
    from mlflow.server import auth

    application = _choose(app)
    for path in _add_page_(application):
        # Files without data, so that a login is enough; what they show asks MLflow's API for each visitor.
        auth.BEFORE_REQUEST_VALIDATORS[path, "GET"] = lambda: True
    return auth.create_app(application)


def _choose(app: Flask | None) -> Flask:
    from mlflow.server import app as mlflow_app

    return mlflow_app if app is None else app


def _add_page_(app: Flask) -> list[str]:
    """Add the page and its files to an application; return their paths."""
    from mlflow.server.handlers import _add_static_prefix

    path = _add_static_prefix("/pareto")
    texts = {name: read_asset(name) for name in list_assets()}
    settings = {"labels": LABELS, "colours": COLOURS, "interval_ms": INTERVAL_MS}
    parts = {"head": _HEAD, "nav": _NAVIGATION, "studies": read_asset("studies.html")}
    page = fill_page("Pareto fronts", settings, **parts)

    def show_page() -> Response:
        return Response(page, mimetype="text/html", headers=_HEADERS)

    def show_file(name: str) -> Response:
        if name not in texts:
            abort(404)
        return Response(texts[name], mimetype=_TYPES[name.rpartition(".")[2]], headers=_HEADERS)

    def leave_slash() -> AnyResponse:
        return redirect(path)  # the page's addresses are relative to the folder above it

    app.add_url_rule(path, "dirprune_pareto", show_page)
    app.add_url_rule(f"{path}/", "dirprune_pareto_slash", leave_slash)
    app.add_url_rule(f"{path}/<name>", "dirprune_pareto_file", show_file)
    return [path, f"{path}/", *(f"{path}/{name}" for name in texts)]

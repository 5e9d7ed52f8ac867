"""Whether an MLflow server answers, through its API to its database: `python -m dirprune.server.health`.

`/health` says OK without looking at the database, and to requests that the server refuses everywhere else.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from base64 import b64encode

PATIENCE_S = 5.0


def choose_host(allowed: str, port: str) -> str:
    """Return a Host header that a server takes: one that is told its names refuses 127.0.0.1, too.

    Args:
        allowed: `MLFLOW_SERVER_ALLOWED_HOSTS`: names and patterns with `*`, separated by commas.
        port: On which it listens.
    """
    names = [name.strip() for name in allowed.split(",") if name.strip()]
    if not names or "*" in names:
        return f"127.0.0.1:{port}"
    name = min(names, key=lambda name: "*" in name)
    return name.replace(":*", f":{port}").replace("*", "health")


def main() -> int:
    """Ask the server on this machine for one experiment; return 0 if it gave an answer of the API.

    Where logins are on it asks as the administrator. A password that was changed since is refused with 401,
    after a look into the database: that is an answer, too.
    """
    port = os.environ.get("MLFLOW_PORT", "5000")
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
    )
    request.add_header("Host", choose_host(os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", ""), port))
    password = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD")
    if password:
        login = f"{os.environ.get('MLFLOW_AUTH_ADMIN_USERNAME') or 'admin'}:{password}"
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            print(f"the API answers with {answer.status}")
            return 0
    except urllib.error.HTTPError as error:
        error.close()
        print(f"the API answers with {error.code}")
        return 0 if error.code == 401 else 1
    except OSError as error:
        print(f"no answer: {getattr(error, 'reason', error)}")
        return 1


if __name__ == "__main__":
    sys.exit(main())

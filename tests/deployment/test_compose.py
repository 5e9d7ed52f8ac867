"""The files of the containers, as far as that shows without a run: schema, secrets, checks, versions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.deployment.services import USER, find_postgres, run_postgres

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "mlflow" / "compose.yaml"
TEXT = COMPOSE.read_text(encoding="utf-8")
SERVICES = yaml.safe_load(TEXT)["services"]
EXAMPLE = (ROOT / "mlflow" / ".env.example").read_text(encoding="utf-8")
SECRETS = ("POSTGRES_PASSWORD", "S3_SECRET_KEY", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY")


def check_schema(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_compose_file_keeps_to_the_schema_and_a_broken_one_does_not(tmp_path: Path) -> None:
    result = check_schema(COMPOSE)
    assert result.returncode == 0, result.stdout
    broken = tmp_path / "compose.yaml"
    broken.write_text(TEXT.replace("healthcheck:", "healtcheck:"))
    assert check_schema(broken).returncode != 0


def test_no_secret_has_a_default_and_each_is_required() -> None:
    for name in SECRETS:
        assert re.search(rf"^{name}=$", EXAMPLE, flags=re.MULTILINE)
        uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", TEXT)
        assert uses
        assert all(use.startswith(":?") for use in uses)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name


def test_every_variable_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", TEXT))
    assert used == set(re.findall(r"^(\w+)=", EXAMPLE, flags=re.MULTILINE))


def test_services_that_stay_have_a_health_check_and_what_they_keep_lies_in_a_volume() -> None:
    staying = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"}
    assert staying == {"database", "objects", "server"}
    for name in staying:
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
        assert SERVICES[name]["volumes"]
    assert SERVICES["server"]["healthcheck"]["test"][-1] == "dirprune.server.health"
    assert SERVICES["server"]["depends_on"]["database"] == {"condition": "service_healthy"}


@pytest.mark.slow
@pytest.mark.skipif(find_postgres() is None, reason="needs PostgreSQL's programs")
def test_database_counts_as_healthy_only_when_it_listens_to_others() -> None:
    """The image sets a database up with a server that listens on its socket alone, then starts another."""
    _, program, *arguments = SERVICES["database"]["healthcheck"]["test"]
    own = {"--username=mlflow": f"--username={USER}", "--dbname=mlflow": "--dbname=postgres"}
    arguments = [own.get(argument, argument) for argument in arguments]
    with run_postgres(addresses="") as database:
        database.environment |= {"PGHOST": str(database.folder), "PGPORT": str(database.port)}
        with pytest.raises(AssertionError, match="refused"):
            database.run(program, *arguments)
        database.stop()
        database.start()
        database.run(program, *arguments)


def test_only_the_server_is_reached_from_outside_and_on_localhost_unless_said_otherwise() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"server"}
    assert SERVICES["server"]["ports"] == ["${LISTEN:-127.0.0.1}:${PORT:-5000}:5000"]


def test_images_are_pinned_and_the_server_is_the_version_that_is_tested() -> None:
    images = [service["image"] for service in SERVICES.values()]
    assert all(re.search(r":v?\d+\.\d+", image) for image in images)
    dockerfile = (ROOT / "mlflow" / "Dockerfile").read_text(encoding="utf-8")
    pins = dict(re.findall(r"'([\w-]+)(?:\[\w+\])?==([\d.]+)'", dockerfile))
    assert set(pins) == {"mlflow", "sqlalchemy", "psycopg", "boto3"}
    # MLflow's minor version is what the page's plugin needs; the others are what this was last tried with.
    assert pins["mlflow"].split(".")[:2] == version("mlflow").split(".")[:2]
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["server"]
    assert f">={pins['mlflow'].rpartition('.')[0]}" in extra[0]


def test_the_image_holds_what_is_copied_and_nothing_else() -> None:
    ignored = (ROOT / "mlflow" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    for line in ignored:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line


@pytest.mark.parametrize("name", ["serve.sh"])
def test_scripts_have_nothing_that_shellcheck_warns_of(name: str) -> None:
    command = [Path(sys.executable).with_name("shellcheck"), str(ROOT / "mlflow" / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout

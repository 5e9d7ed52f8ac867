#!/usr/bin/env bash
# An MLflow server with dirprune's Pareto page, without containers (the container runs this, too).
set -euo pipefail

usage() {
  cat <<'END'
mlflow/serve.sh [--host 127.0.0.1] [--port 5000] [--workers 1] [--folder mlflow-server] [--auth] [--upgrade]

Listens on localhost unless --host says otherwise; logins are on when it does, or with --auth.
--upgrade brings the database to the installed MLflow's schema and ends; back it up first.

Everything else comes from the environment, where `ps` does not show it:
  MLFLOW_BACKEND_STORE_URI        sqlite:///<folder>/mlflow.db unless set, such as postgresql://mlflow@HOST/mlflow
                                  with PGPASSWORD or ~/.pgpass
  MLFLOW_ARTIFACTS_DESTINATION    <folder>/artifacts unless set, such as s3://bucket/prefix with
                                  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, MLFLOW_S3_ENDPOINT_URL
  MLFLOW_AUTH_ADMIN_USERNAME      admin unless set
  MLFLOW_AUTH_ADMIN_PASSWORD      needed at the first start with logins; 12 characters at least
  MLFLOW_FLASK_SERVER_SECRET_KEY  <folder>/secret-key unless set, which is made at the first start
  MLFLOW_SERVER_ALLOWED_HOSTS     names under which others call this server; localhost and private addresses unless set
  PYTHON                          the Python that has mlflow[auth] and dirprune; .venv/bin/python beside this folder unless set
END
}

fail() {
  echo "error: $1" >&2
  exit 2
}

host=127.0.0.1 port=5000 workers=1 folder=mlflow-server logins=false upgrade=false
while [ $# -gt 0 ]; do
  case "$1" in
    --host | --port | --workers | --folder)
      [ $# -gt 1 ] || fail "$1: expected a value, got nothing; try $0 --help"
      declare "${1#--}=$2"
      shift 2
      ;;
    --auth) logins=true && shift ;;
    --upgrade) upgrade=true && shift ;;
    --help | -h) usage && exit 0 ;;
    *) fail "unknown argument $1; try $0 --help" ;;
  esac
done
if ! [[ $port =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65535)); then
  fail "--port: expected a number from 1 to 65535, got $port"
fi
[[ $workers =~ ^[1-9][0-9]*$ ]] || fail "--workers: expected a number above 0, got $workers"
case "$host" in
  127.0.0.1 | localhost | ::1) ;;
  *) logins=true ;;
esac

beside=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ ! -x "$beside/.venv/bin/python" ] || PYTHON=$beside/.venv/bin/python
fi
[[ $PYTHON != */* ]] || PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
case "${MLFLOW_BACKEND_STORE_URI:-}" in # both are read from the folder below
  sqlite:////*) ;;
  sqlite:///?*) MLFLOW_BACKEND_STORE_URI=sqlite:///$PWD/${MLFLOW_BACKEND_STORE_URI#sqlite:///} ;;
esac
case "${MLFLOW_ARTIFACTS_DESTINATION:-/}" in
  /* | *:*) ;;
  *) MLFLOW_ARTIFACTS_DESTINATION=$PWD/$MLFLOW_ARTIFACTS_DESTINATION ;;
esac
umask 077 # the database, the users and the secret key are nobody else's to read
mkdir -p "$folder" || fail "--folder: $folder cannot be created"
folder=$(realpath "$folder")

export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$folder/mlflow.db}
export MLFLOW_ARTIFACTS_DESTINATION=${MLFLOW_ARTIFACTS_DESTINATION:-$folder/artifacts}
export MLFLOW_HOST=$host MLFLOW_PORT=$port MLFLOW_SERVER_ENABLE_JOB_EXECUTION=${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false}
export MLFLOW_DISABLE_TELEMETRY=${MLFLOW_DISABLE_TELEMETRY:-true}
app=dirprune
unset MLFLOW_AUTH_CONFIG_PATH
if $logins; then
  app=dirprune-auth
  if [ -z "${MLFLOW_FLASK_SERVER_SECRET_KEY:-}" ]; then
    [ -s "$folder/secret-key" ] || "$PYTHON" -c 'import secrets; print(secrets.token_hex(32))' >"$folder/secret-key"
    MLFLOW_FLASK_SERVER_SECRET_KEY=$(cat "$folder/secret-key")
    export MLFLOW_FLASK_SERVER_SECRET_KEY
  fi
  export MLFLOW_AUTH_CONFIG_PATH=$folder/auth.ini
  cat >"$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = READ
database_uri = ${MLFLOW_BACKEND_STORE_URI//%/%%}
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# A password's hash takes longer than most requests; other workers learn of a changed password after this long.
auth_cache_ttl_seconds = 60
END
fi
cd "$folder" # away from any checkout: a folder called mlflow there would hide the library

if $upgrade; then
  "$PYTHON" -W ignore -m dirprune.server.preflight --upgrade
  echo "the database has the schema of this MLflow"
  exit
fi
"$PYTHON" -W ignore -m dirprune.server.preflight
echo "MLflow at http://$host:$port, fronts at /pareto, logins $($logins && echo on || echo off), files in $folder"
exec "$PYTHON" -m mlflow server --host "$host" --port "$port" --workers "$workers" --app-name "$app"

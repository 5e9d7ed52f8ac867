#!/usr/bin/env bash
# Ray on this machine alone, for studies one after the other: cluster/local.sh [PORT [DASHBOARD_PORT]]
# It listens on localhost, asks for a token, and ends with Ctrl-C. With a port for its dashboard it takes jobs too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
port="${1:-6379}" dashboard_port="${2:-}"
for given in "$port" ${dashboard_port:+"$dashboard_port"}; do
  if ! [[ "$given" =~ ^[0-9]+$ ]]; then
    echo "error: expected cluster/local.sh [PORT [DASHBOARD_PORT]], got '$given'" >&2
    exit 2
  elif (exec 3<> "/dev/tcp/127.0.0.1/$given") 2> /dev/null; then
    echo "error: something listens at port $given already; give another: cluster/local.sh [PORT [DASHBOARD_PORT]]" >&2
    exit 2
  fi
done

export RAY_AUTH_MODE=token
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0  # what makes Ray keep to localhost
export RAY_USAGE_STATS_ENABLED=0
if [ ! -f "$HOME/.ray/auth_token" ] && [ -z "${RAY_AUTH_TOKEN:-}" ]; then
  (umask 077 && ray get-auth-token --generate > /dev/null) # else all users of the machine could read it
fi

echo "in another terminal: RAY_AUTH_MODE=token .venv/bin/python studies/lenet.py --ray-address 127.0.0.1:$port"
# Without a dashboard Ray still complains where the usual port for one is taken.
any_port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
dashboard=(--include-dashboard=false --dashboard-port="$any_port")
if [ -n "$dashboard_port" ]; then
  dashboard=(--include-dashboard=true --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port")
  dashboard+=(--dashboard-agent-listen-port=0) # any: where another Ray listens at the usual one, no job is taken
  echo "or, as a job: RAY_AUTH_MODE=token .venv/bin/ray job submit --address http://127.0.0.1:$dashboard_port" \
    "--working-dir . -- python studies/lenet.py --output $PWD/output"
fi
exec env -u RAY_ADDRESS ray start --head --block --node-ip-address=127.0.0.1 --port="$port" \
  "${dashboard[@]}" --disable-usage-stats

#!/usr/bin/env bash
# Ray on this machine alone, for studies that are submitted one after the other: cluster/local.sh [PORT]
# It listens on localhost, asks for a token, and ends with Ctrl-C.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"
port="${1:-6379}"

export RAY_AUTH_MODE=token
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0  # what makes Ray keep to localhost
export RAY_USAGE_STATS_ENABLED=0
[ -f "$HOME/.ray/auth_token" ] || [ -n "${RAY_AUTH_TOKEN:-}" ] || ray get-auth-token --generate > /dev/null

echo "in another terminal: RAY_AUTH_MODE=token .venv/bin/python studies/lenet.py --ray-address 127.0.0.1:$port"
exec env -u RAY_ADDRESS ray start --head --block --node-ip-address=127.0.0.1 --port="$port" \
  --include-dashboard=false --disable-usage-stats

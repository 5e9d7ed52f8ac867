#!/usr/bin/env bash
# What Ray's cluster launcher runs on each node: node.sh install | head | worker
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cluster/environment.sh

case "${DIRPRUNE_OUTPUT}${MLFLOW_TRACKING_URI}" in
  *EDIT-ME*) echo "error: expected cluster/environment.sh with its marked places edited, found EDIT-ME in it" >&2; exit 2 ;;
esac

case "${1:-}" in
  install)
    make install
    line="source $PWD/cluster/environment.sh"
    grep -qxF "$line" "$HOME/.bashrc" || echo "$line" >> "$HOME/.bashrc"
    mkdir -p "$DIRPRUNE_OUTPUT"
    ;;
  head)
    ray stop
    ulimit -c 0
    env -u RAY_ADDRESS ray start --head --port=6379 --dashboard-host=127.0.0.1 \
      --autoscaling-config="$HOME/ray_bootstrap_config.yaml"
    ;;
  worker)
    ray stop
    ulimit -c 0
    env -u RAY_ADDRESS ray start --address="$RAY_HEAD_IP:6379"
    ;;
  *) echo "error: expected install, head or worker, got '${1:-}'" >&2; exit 2 ;;
esac

#!/usr/bin/env bash
# What Ray's cluster launcher runs on each node: node.sh install | ray start ...
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
  ray)
    ray stop
    ulimit -c 0
    env -u RAY_ADDRESS "$@"
    ;;
  *) echo "error: expected install or ray, got '${1:-}'" >&2; exit 2 ;;
esac

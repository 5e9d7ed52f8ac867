#!/usr/bin/env bash
# What Ray's cluster launcher runs on each node: node.sh install | ray start ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python3 cluster/check.py cluster/node.sh
source cluster/environment.sh
software=cluster/software-of-head.json # the head's launcher brings it to the workers with the project

case "${1:-}" in
  install)
    make install
    line="source $PWD/cluster/environment.sh"
    grep -qxF "$line" "$HOME/.bashrc" || echo "$line" >> "$HOME/.bashrc"
    mkdir -p "$DIRPRUNE_OUTPUT"
    ;;
  ray)
    case " $* " in
      *" --head "*) python -m dirprune.tuning.software --write "$software" ;;
      *) [ ! -f "$software" ] || python -m dirprune.tuning.software --compare "$software" ;;
    esac
    ray stop
    ulimit -c 0
    env -u RAY_ADDRESS "$@"
    ;;
  *) echo "error: expected install or ray, got '${1:-}'" >&2; exit 2 ;;
esac

#!/usr/bin/env bash
# A study on nodes that Slurm gives: sbatch cluster/slurm.sh studies/resnet56.py --data /shared/cifar10 --trials 60
# Run it from the project's folder, which lies on all nodes and in which `make install` has been run. A job that Slurm
# ends goes on when it is submitted again: --resume is always given. Never run by us under Slurm: a test runs it with
# stand-ins for srun and scontrol.
#SBATCH --job-name=dirprune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=08:00:00
set -euo pipefail
python3 cluster/check.py cluster/slurm.sh
source cluster/environment.sh
if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "error: expected a job of Slurm; try sbatch cluster/slurm.sh ${*:-studies/resnet56.py}" >&2
  exit 2
fi
export PATH="$PWD/.venv/bin:$PATH"
export RAY_AUTH_TOKEN
RAY_AUTH_TOKEN="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"

export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # since Slurm 22.05 a step does not take it from the job

study="${1:?error: expected a study, such as studies/resnet56.py}"
shift
head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=$((20000 + SLURM_JOB_ID % 10000)) # another job of ours may have a Ray on the same node
steps=()
PATIENCE_S=${DIRPRUNE_PATIENCE_S:-300} # for nodes whose Ray does not start

start_nodes() {
  env -u RAY_ADDRESS srun "$@" --block --num-cpus="$SLURM_CPUS_PER_TASK" &
  steps+=($!)
}

is_listening() {
  (exec 3<> "/dev/tcp/$head/$port") 2> /dev/null
}

has_all_nodes_or_waited() { # a step of several nodes goes on when one of them fails: a study runs on the others
  python - "$head:$port" "$SLURM_JOB_NUM_NODES" "$((SECONDS >= PATIENCE_S))" 2> /dev/null << 'END'
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)
n_nodes, n_wanted = sum(node["Alive"] for node in ray.nodes()), int(sys.argv[2])
has_waited = sys.argv[3] == "1"
if has_waited and n_nodes < n_wanted:
    print(f"warning: {n_nodes} of {n_wanted} nodes have Ray; the study begins without the others")
sys.exit(n_nodes < n_wanted and not has_waited)
END
}

wait_until() {
  until "$@"; do
    for step in "${steps[@]}"; do
      kill -0 "$step" 2> /dev/null || { echo "error: expected Ray on every node, on one it has ended; see above" >&2; exit 2; }
    done
    sleep 1
  done
}

start_nodes --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port="$port" --dashboard-host=127.0.0.1
wait_until is_listening
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  n_others=$((SLURM_JOB_NUM_NODES - 1))
  start_nodes --nodes="$n_others" --ntasks="$n_others" --exclude="$head" ray start --address="$head:$port"
fi
wait_until has_all_nodes_or_waited
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  python "$study" --ray-address "$head:$port" --resume "$@"

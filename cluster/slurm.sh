#!/usr/bin/env bash
# A study on nodes that Slurm gives: sbatch cluster/slurm.sh studies/resnet56.py --data /shared/cifar10 --trials 60
# Run it from the project's folder, which lies on all nodes and in which `make install` has been run. A job that Slurm
# ends goes on when it is submitted again: --resume is always given. Never run by us: read and checked alone.
#SBATCH --job-name=dirprune
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=08:00:00
set -euo pipefail
python3 cluster/check.py cluster/slurm.sh
source cluster/environment.sh
export PATH="$PWD/.venv/bin:$PATH"
export RAY_AUTH_TOKEN
RAY_AUTH_TOKEN="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"

export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # since Slurm 22.05 a step does not take it from the job

study="${1:?error: expected a study, such as studies/resnet56.py}"
shift
head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
port=6379

env -u RAY_ADDRESS srun --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --block --port="$port" --dashboard-host=127.0.0.1 --num-cpus="$SLURM_CPUS_PER_TASK" &
sleep 20
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  env -u RAY_ADDRESS srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$head" \
    ray start --address="$head:$port" --block --num-cpus="$SLURM_CPUS_PER_TASK" &
  sleep 20
fi
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  python "$study" --ray-address "$head:$port" --resume "$@"

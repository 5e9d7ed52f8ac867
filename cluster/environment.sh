# What every node of a cluster needs to know; sourced by node.sh, and by the shells in which studies start.
# Edit the two marked places. The folder must be the same on all nodes (NFS, EFS, Filestore), unless there is a storage.

export DIRPRUNE_OUTPUT=EDIT-ME          # shared folder for studies, such as /shared/dirprune
# export DIRPRUNE_STORAGE=s3://bucket/studies  # where no folder is shared: nodes exchange checkpoints and models there
export MLFLOW_TRACKING_URI=EDIT-ME      # the team's MLflow server, or sqlite:////shared/dirprune/mlflow.db
# Its login is not for this file, which travels to all nodes: ~/.mlflow/credentials on the head, mode 600 (README.md).

export PATH="$HOME/dirprune/.venv/bin:$PATH"
export RAY_ADDRESS=auto
export RAY_AUTH_MODE=token              # the token lies in ~/.ray/auth_token; see README.md
export RAY_enable_autoscaler_v2=0       # version 2 starts no worker of a list of machines, and does not say so
export RAY_health_check_period_ms=1000  # a node that is gone is noticed in 3 s instead of 14
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3
export RAY_USAGE_STATS_ENABLED=0

#!/usr/bin/env bash
# The first process of a machine made of namespaces: machine.sh HOME ADDRESS HOSTNAME [sshd]
# Everything that runs on the machine ends with it.
set -euo pipefail
home="$1" address="$2" name="$3"
hostname "$name"
mount --make-rprivate /
mount --bind "$home/.machine/passwd" /etc/passwd
mount -t tmpfs -o size=12g tmpfs /dev/shm
mount -t tmpfs -o size=64m tmpfs /run
mount -t tmpfs -o size=2g tmpfs /tmp/ray
mount -t tmpfs -o size=1m tmpfs /sys/fs/cgroup
echo "100000 100000" > /sys/fs/cgroup/cpu.max  # what says that the machine has one core
mkdir -p /run/sshd
ip link set lo up
if [ "${4:-}" = sshd ]; then
  /usr/sbin/sshd -D -e -f /dev/null -h "$home/.machine/host_key" -o ListenAddress="$address" -o PidFile=none \
    -o UsePAM=no -o StrictModes=no -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no \
    -o AuthorizedKeysFile="$home/.machine/authorized_keys" -o MaxStartups=50 \
    -o SetEnv=RAY_worker_niceness=0 2> "$home/.machine/sshd.log" &  # Ray gives workers 15: beside other tests they starve
fi
touch "$home/.machine/up"
while true; do sleep 3600 & wait $!; done

#!/usr/bin/env bash
# Runs a command in a control group with a limit of memory, as a container does, and says the limit in
# CONTAINER_BYTES: `tools/container.sh 512M cargo test --test faults container`. Needs root.
set -euo pipefail

limit=$(numfmt --from=iec "$1")
shift
if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
  group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
  file=memory.max
else
  group=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
  file=memory.limit_in_bytes
fi
group=${group%/}/bevy_candle_$$
mkdir "$group"
trap 'rmdir "$group"' EXIT
echo "$limit" >"$group/$file"
CONTAINER_BYTES=$limit bash -c 'echo $$ >"$0/cgroup.procs"; exec "$@"' "$group" "$@"

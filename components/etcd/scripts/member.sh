#!/bin/bash
# Enable this host's member, and start it if it has data and does not run. The readiness gate does the rest, because it
# sees all members: it restarts a running one with its new configuration, one at a time, and it starts one without data,
# which founds the cluster with the others or joins it (convergence.py).
set -eu
unit=calico-lab-etcd.service
systemctl daemon-reload
systemctl enable --quiet "$unit"
if systemctl is-active --quiet "$unit"; then
    # The unit deletes it when it starts.
    touch /var/lib/calico-lab/etcd-restart
elif [ -d /var/lib/calico-lab/etcd/member/wal ]; then
    # It is ready only when its peers run, which may start later. The gate waits for it.
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemctl restart --no-block "$unit"
fi

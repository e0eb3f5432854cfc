#!/bin/bash
# Stop and disable this host's member, and remove its data. It does not change the cluster: the readiness gate has removed
# a member that leaves before this runs, and `destroy` removes all.
set -eu
unit=calico-lab-etcd.service
systemctl disable --quiet "$unit" 2>/dev/null || true
# SIGKILL, because a leader that stops transfers its leadership, which takes seconds when all members stop at once.
systemctl kill --signal=KILL "$unit" 2>/dev/null || true
systemctl stop "$unit" 2>/dev/null || true
systemctl reset-failed "$unit" 2>/dev/null || true
rm -rf /var/lib/calico-lab/etcd /var/lib/calico-lab/etcd-{begin.env,begin.env.new,cluster,pending-restore,restart,was-healthy}

#!/bin/bash
# Start this host's member without data: in a new cluster, or as a member that the cluster has been told of ($BEGINS is
# "new" or "existing") of the members in $INITIAL_CLUSTER. What a former member has left is deleted. $TOKEN is the token
# of the bootstrap, and $CLUSTER identifies the lab's cluster, so that its data are known again.
set -eu
unit=calico-lab-etcd.service
state=/var/lib/calico-lab
systemctl kill --signal=KILL "$unit" 2>/dev/null || true
systemctl stop "$unit" 2>/dev/null || true
rm -rf "$state/etcd/member" "$state/etcd-begin.env"
echo "$CLUSTER" >"$state/etcd-cluster"
# The unit reads this file after etcd.env. It is in /var/lib, because it has to survive a reboot. The gate (health.sh)
# deletes it when the member is healthy, and then no start can begin without data.
printf '%s\n' "ETCD_INITIAL_CLUSTER_STATE=$BEGINS" "ETCD_INITIAL_CLUSTER_TOKEN=$TOKEN" \
    "ETCD_INITIAL_CLUSTER=$INITIAL_CLUSTER" >"$state/etcd-begin.env.new"
mv "$state/etcd-begin.env.new" "$state/etcd-begin.env"
systemctl enable --quiet "$unit"
systemctl reset-failed "$unit" 2>/dev/null || true
systemctl start --no-block "$unit"

#!/bin/bash
# Change the cluster from this host: run etcdctl with $ARGUMENTS ("member remove 1a2b") at $ENDPOINTS.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/etcd/etcdctl.env
set +a
export ETCDCTL_ENDPOINTS=$ENDPOINTS
# shellcheck disable=SC2086 # one word per argument
exec etcdctl --command-timeout=10s $ARGUMENTS

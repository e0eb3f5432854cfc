#!/bin/bash
# Print what this host's member is, a fact a line; nothing where no member is installed. $CLUSTER is the identity of the
# lab's cluster, or empty; $METRICS_PORT is where a member reports its health on loopback, without certificates.
#   data none|own|other     a write-ahead log, and whether it belongs to this cluster
#   begins new|existing     the member has not been healthy since its first start
#   initial NAME=URL,...    the members that it was started with
#   restart yes             it runs with a former configuration
#   was-healthy yes         the gate has seen it healthy in this cluster, with data that may be lost by now
#   healthy yes             a quorum confirms a read
#   status, members         JSON of etcdctl; error instead where it has no answer
set -u
state=/var/lib/calico-lab
settings=/etc/calico-lab/etcd/etcd.env
data=none
if [ -d "$state/etcd/member/wal" ]; then
    data=own
    [ -z "$CLUSTER" ] || [ ! -s "$state/etcd-cluster" ] || [ "$(cat "$state/etcd-cluster")" = "$CLUSTER" ] || data=other
fi
[ -e "$settings" ] || [ "$data" != none ] || exit 0
echo "data $data"
sed -n 's/^ETCD_INITIAL_CLUSTER_STATE=/begins /p; s/^ETCD_INITIAL_CLUSTER=/initial /p' "$state/etcd-begin.env" 2>/dev/null
[ ! -e "$state/etcd-restart" ] || echo "restart yes"
[ -z "$CLUSTER" ] || [ "$(cat "$state/etcd-was-healthy" 2>/dev/null)" != "$CLUSTER" ] || echo "was-healthy yes"
[ "$data" != none ] && [ -e "$settings" ] || exit 0

# A member that waits for its peers does not listen yet.
is_healthy() {
    { exec 3<>"/dev/tcp/127.0.0.1/$METRICS_PORT"; } 2>/dev/null || return 1
    printf 'GET /health HTTP/1.0\r\n\r\n' >&3 2>/dev/null
    timeout 5 cat <&3 2>/dev/null | grep -q '"health":"true"'
}
is_healthy || exit 0
echo "healthy yes"
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/etcd/etcdctl.env
set +a
export ETCDCTL_ENDPOINTS
# Where the process listens, which may wait for its restart with another port.
pid=$(systemctl show --property MainPID --value calico-lab-etcd.service)
ETCDCTL_ENDPOINTS=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^ETCD_ADVERTISE_CLIENT_URLS=//p')
ask() { etcdctl --command-timeout=5s --write-out=json "$@" 2>&1; }
if status=$(ask endpoint status) && members=$(ask member list); then
    echo "status $status"
    echo "members $members"
else
    echo "error $(tail -n 1 <<<"${members:-$status}")"
fi

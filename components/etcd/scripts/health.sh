#!/bin/bash
# Wait until this host's member is healthy, which means that it answers a read that a quorum has confirmed. Fail after
# $SECONDS_ALLOWED seconds.
set -eu
unit=calico-lab-etcd.service
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/etcd/etcdctl.env
set +a
export ETCDCTL_ENDPOINTS=$ENDPOINT
deadline=$((SECONDS + SECONDS_ALLOWED))
until health=$(etcdctl --command-timeout=2s endpoint health 2>&1); do
    [ "$SECONDS" -lt "$deadline" ] && sleep 0.2 && continue
    {
        echo "$HOST: etcd: the member is not healthy after $SECONDS_ALLOWED s"
        echo "its unit $unit: $(systemctl show -p ActiveState,SubState,NRestarts "$unit" | paste -s -d ' ')"
        echo "its client endpoint: $(grep 'is unhealthy' <<<"$health" || tail -n 1 <<<"$health")"
        echo "its last log lines:"
        journalctl -u "$unit" -n 15 --no-pager -o cat || true
        echo "next: 'journalctl -u $unit' on each member shows why; then run 'pulumi up' again"
    } >&2
    exit 1
done
# The gate comes after a restore, so none is pending.
rm -f /var/lib/calico-lab/etcd-begin.env /var/lib/calico-lab/etcd-pending-restore
# The identity of the cluster in which it was healthy; a restored one keeps it.
cp /var/lib/calico-lab/etcd-cluster /var/lib/calico-lab/etcd-was-healthy 2>/dev/null || true

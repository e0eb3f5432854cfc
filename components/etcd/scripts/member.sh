#!/bin/bash
# Start this host's member, or restart it with its new configuration.
set -eu
unit=calico-lab-etcd.service
LOCK_SECONDS=60
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/etcd/etcdctl.env
set +a
systemctl daemon-reload
systemctl enable --quiet "$unit"

# A member without a WAL is new or has lost its data. In a new cluster the others do not answer, or list it without
# client URLs. In a running cluster they list it with client URLs or as unstarted, or do not list it; then it has lost
# its data. Bootstrapping it again would give it an identity that they do not know. So it is not started here; the
# readiness gate (health.sh) lets it join.
has_lost_its_data() {
    local members
    [ ! -d /var/lib/calico-lab/etcd/member/wal ] &&
        members=$(etcdctl --command-timeout=2s member list --write-out=simple 2>/dev/null) &&
        ! awk -F ', ' -v name="$HOST" '$3 == name && $5 == "" { found = 1 } END { exit !found }' <<<"$members"
}

# Whether any member answers a read that a quorum has confirmed. The timeout covers the election of a leader.
has_quorum() { etcdctl --command-timeout=10s endpoint health 2>/dev/null | grep -q 'is healthy'; }

# etcdctl prints the lock's name when it holds the lock, and releases it on SIGTERM. It exits by itself when it loses
# the connection to the cluster.
acquire_lock() {
    exec 4< <(exec etcdctl lock calico-lab-restart 2>/dev/null)
    lock=$!
    read -r -t "$LOCK_SECONDS" _ <&4 && return
    kill "$lock" 2>/dev/null || true
    return 1
}

# Wait for the lock while there is a quorum; fail if there is none. Each member holds the lock during its restart.
wait_for_lock() {
    local members deadline
    members=$(tr ',' '\n' <<<"$ETCDCTL_ENDPOINTS" | wc -l)
    deadline=$((SECONDS + members * LOCK_SECONDS))
    until acquire_lock; do
        has_quorum || return
        if [ "$SECONDS" -ge "$deadline" ]; then
            {
                echo "$HOST: etcd: not restarted with its new configuration, because the lock calico-lab-restart" \
                    "was not free within $((members * LOCK_SECONDS)) s"
                echo "next: end the process that holds it, for example 'etcdctl lock', then run 'pulumi up' again"
            } >&2
            exit 1
        fi
        sleep 1
    done
}

if systemctl is-active --quiet "$unit"; then
    # Pulumi may change all members at the same time. A lock in etcd and the check of the other members keep the quorum:
    # a healthy member restarts alone, and only while all others are healthy. Without a quorum there is none to keep.
    trap 'kill "$lock" 2>/dev/null || true' EXIT
    if wait_for_lock; then
        if ETCDCTL_ENDPOINTS=$ENDPOINT etcdctl endpoint health >/dev/null 2>&1 &&
            ! health=$(etcdctl endpoint health 2>&1); then
            {
                echo "$HOST: etcd: not restarted with its new configuration, because another member is unhealthy:"
                grep 'is unhealthy' <<<"$health"
                echo "next: see 'journalctl -u $unit' on its host, repair it, then run 'pulumi up' again"
            } >&2
            exit 1
        fi
        timeout "$LOCK_SECONDS" systemctl restart "$unit"
    else
        systemctl restart --no-block "$unit"
    fi
elif ! has_lost_its_data; then
    # It is ready only when its peers run, which may start later. The readiness gate waits for it.
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemctl restart --no-block "$unit"
fi

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

# A member without a log begins with a cluster that begins. In one that has begun it has lost its data: the others know
# where it answered clients, or have been told to forget it or to take it in. To begin anew would give it an identity
# that they do not know, so it is left to the gate (health.sh), which has it join them.
has_lost_its_data() {
    local members
    [ ! -d /var/lib/calico-lab/etcd/member/wal ] &&
        members=$(etcdctl --command-timeout=2s member list --write-out=simple 2>/dev/null) &&
        ! awk -F ', ' -v name="$HOST" '$3 == name && $5 == "" { found = 1 } END { exit !found }' <<<"$members"
}

# Whether any member answers a read that a quorum has confirmed; the election of a leader is waited for.
has_quorum() { etcdctl --command-timeout=10s endpoint health 2>/dev/null | grep -q 'is healthy'; }

# etcdctl prints the name of the lock when it has it, and gives it back when it is told to end. It ends by itself when
# it can no longer speak to the cluster.
take_the_lock() {
    exec 4< <(exec etcdctl lock calico-lab-restart 2>/dev/null)
    lock=$!
    read -r -t "$LOCK_SECONDS" _ <&4 && return
    kill "$lock" 2>/dev/null || true
    return 1
}

# Wait for the lock while there is a quorum; fail where there is none. Each member has it for as long as it restarts.
wait_for_the_lock() {
    local members deadline
    members=$(tr ',' '\n' <<<"$ETCDCTL_ENDPOINTS" | wc -l)
    deadline=$((SECONDS + members * LOCK_SECONDS))
    until take_the_lock; do
        has_quorum || return
        if [ "$SECONDS" -ge "$deadline" ]; then
            {
                echo "$HOST: etcd: not restarted with its new configuration, because the lock calico-lab-restart was not" \
                    "free within $((members * LOCK_SECONDS)) s"
                echo "next: whoever has it gives it back at its end, 'etcdctl lock' for example: end it, and run" \
                    "'pulumi up' again"
            } >&2
            exit 1
        fi
        sleep 1
    done
}

if systemctl is-active --quiet "$unit"; then
    # All members may be given a new configuration in one go. The cluster itself lends them a lock, and a healthy
    # member gives way only while no other is missing: so the quorum stays. Where there is none, there is none to keep.
    trap 'kill "$lock" 2>/dev/null || true' EXIT
    if wait_for_the_lock; then
        if ETCDCTL_ENDPOINTS=$ENDPOINT etcdctl endpoint health >/dev/null 2>&1 &&
            ! health=$(etcdctl endpoint health 2>&1); then
            {
                echo "$HOST: etcd: not restarted with its new configuration, because another member is missing:"
                grep 'is unhealthy' <<<"$health"
                echo "next: look at 'journalctl -u $unit' there, mend it, and run 'pulumi up' again"
            } >&2
            exit 1
        fi
        timeout "$LOCK_SECONDS" systemctl restart "$unit"
    else
        systemctl restart --no-block "$unit"
    fi
elif ! has_lost_its_data; then
    # Its peers may still have to be started: whether it becomes healthy is for the gate to say.
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemctl restart --no-block "$unit"
fi

#!/bin/bash
# Start this host's member, or restart it when $CONFIG is not the configuration that it was started with.
set -eu
unit=calico-lab-etcd.service
started_with=/var/lib/calico-lab/etcd.config
if [ "$(cat "$started_with" 2>/dev/null)" = "$CONFIG" ] && systemctl is-active --quiet "$unit"; then
    exit 0
fi
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

if systemctl is-active --quiet "$unit"; then
    # All members may be given a new configuration in one go. The cluster itself lends them a lock, and a healthy
    # member gives way only while no other is missing: so the quorum stays. Where there is no lock to be had,
    # there is no quorum to be kept.
    # It prints the name of the lock when it has it, and gives it back when it is told to end.
    exec 4< <(exec etcdctl lock calico-lab-restart 2>/dev/null)
    lock=$!
    trap 'kill "$lock" 2>/dev/null || true' EXIT
    if read -r -t 60 _ <&4; then
        if ETCDCTL_ENDPOINTS=$ENDPOINT etcdctl endpoint health >/dev/null 2>&1 &&
            ! health=$(etcdctl endpoint health 2>&1); then
            {
                echo "$HOST: etcd: not restarted with its new configuration, because another member is missing:"
                grep 'is unhealthy' <<<"$health"
                echo "next: look at 'journalctl -u $unit' there, mend it, and run 'pulumi up' again"
            } >&2
            exit 1
        fi
        timeout 60 systemctl restart "$unit"
    else
        systemctl restart --no-block "$unit"
    fi
elif ! has_lost_its_data; then
    # Its peers may still have to be started: whether it becomes healthy is for the gate to say.
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemctl restart --no-block "$unit"
fi
echo "$CONFIG" >"$started_with"

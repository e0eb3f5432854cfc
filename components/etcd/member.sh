#!/bin/bash
# Start this host's member, or restart it when $CONFIG is not the configuration that it was started with.
set -eu
unit=calico-lab-etcd.service
started_with=/var/lib/calico-lab/etcd.config
if [ "$(cat "$started_with" 2>/dev/null)" = "$CONFIG" ] && systemctl is-active --quiet "$unit"; then
    exit 0
fi
systemctl daemon-reload
systemctl enable --quiet "$unit"

if systemctl is-active --quiet "$unit"; then
    # All members may be given a new configuration in one go. The cluster itself lends them a lock, and a healthy
    # member gives way only while no other is missing: so the quorum stays. Where there is no lock to be had,
    # there is no quorum to be kept.
    set -a
    # shellcheck source=/dev/null
    . /etc/calico-lab/etcd/etcdctl.env
    set +a
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
else
    # Its peers may still have to be started: whether it becomes healthy is for the gate to say.
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemctl restart --no-block "$unit"
fi
echo "$CONFIG" >"$started_with"

#!/bin/bash
# Start the timer of this host's snapshots, or start it again with its new settings; if $SNAPSHOTS is empty, stop it.
set -eu
timer=calico-lab-snapshot.timer
folder=/var/lib/calico-lab-snapshots
if [ "$SNAPSHOTS" = yes ]; then
    install -d -m 0700 "$folder"
    # From this moment on a snapshot is expected.
    [ -e "$folder/since" ] || touch "$folder/since"
    systemctl daemon-reload
    systemctl enable --quiet "$timer"
    # A restart begins the intervals anew, so it is done only after a change.
    settings=$(cat "/etc/systemd/system/$timer")
    if [ "$(cat "$folder/timer" 2>/dev/null)" != "$settings" ] || ! systemctl is-active --quiet "$timer"; then
        systemctl restart "$timer"
        printf '%s\n' "$settings" >"$folder/timer"
    fi
elif [ -e "$folder/since" ]; then
    # The files of the units are gone already.
    systemctl stop "$timer" 2>/dev/null || true
    rm -f "/etc/systemd/system/timers.target.wants/$timer" "$folder/since" "$folder/timer"
    systemctl daemon-reload
    echo "$HOST: takes no snapshots of etcd any more; the earlier ones stay in $folder" >&2
fi

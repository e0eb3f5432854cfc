#!/bin/bash
# Stop the timer of this host's snapshots, and remove them unless $KEEP_SNAPSHOTS is "yes". If $OTHER is installed, which
# is the other component with snapshots, they are its now.
set -eu
# What a restore has left.
rm -rf /var/lib/calico-lab/etcd-restored /var/lib/calico-lab/etcd-before-restore
folder=/var/lib/calico-lab-snapshots
if [ ! -e "/var/lib/calico-lab/components/$OTHER/installed" ]; then
    systemctl disable --quiet --now calico-lab-snapshot.timer 2>/dev/null || true
    systemctl stop calico-lab-snapshot.service 2>/dev/null || true
    systemctl reset-failed calico-lab-snapshot.service 2>/dev/null || true
    if [ "$KEEP_SNAPSHOTS" = yes ] && [ -n "$(find "$folder" -name '*.db' 2>/dev/null)" ]; then
        rm -f "$folder/since" "$folder/timer" "$folder/failure.json"
        echo "$HOST: the snapshots of etcd stay in $folder, because etcd.snapshots.keepOnDestroy is true" >&2
    else
        rm -rf "$folder"
    fi
fi

#!/bin/bash
# Start the timer of this host's backups; if $BACKUP_HOST is "yes", also the server that keeps those of other hosts.
set -eu
server="calico-lab-backup-server.service calico-lab-backup-prune.timer"
kept=/var/lib/calico-lab-backup
systemctl daemon-reload
if [ "$BACKUP_HOST" = yes ]; then
    # shellcheck disable=SC2086
    systemctl enable --quiet $server
    # shellcheck disable=SC2086
    systemctl restart $server
else
    # The files of these units are gone already.
    # shellcheck disable=SC2086
    systemctl stop $server 2>/dev/null || true
    rm -f /etc/systemd/system/*.wants/calico-lab-backup-server.service /etc/systemd/system/*.wants/calico-lab-backup-prune.timer
    [ ! -d "$kept" ] || echo "$HOST: is no backup host any more; the earlier ones stay in $kept" >&2
fi
systemctl enable --quiet calico-lab-backup.timer
systemctl restart calico-lab-backup.timer

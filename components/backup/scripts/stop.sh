#!/bin/bash
# Stop what start.sh has started, and remove the records of this host's backups. The backups that it keeps of other
# hosts stay if $KEEP_ON_DESTROY is "yes".
set -eu
kept=/var/lib/calico-lab-backup
for unit in calico-lab-backup.timer calico-lab-backup-prune.timer calico-lab-backup.service \
    calico-lab-backup-prune.service calico-lab-backup-server.service; do
    systemctl disable --quiet --now "$unit" 2>/dev/null || true
    systemctl stop "$unit" 2>/dev/null || true
    systemctl reset-failed "$unit" 2>/dev/null || true
done
rm -rf /var/lib/calico-lab/backup-status /var/lib/calico-lab/backup-cache /var/lib/calico-lab/backup-trial \
    /run/calico-lab-backup
[ -d "$kept" ] || exit 0
if [ "$KEEP_ON_DESTROY" = yes ]; then
    echo "$HOST: the backups stay in $kept, with the passwords that open them, because backup.keepOnDestroy is" \
        "true; a new lab continues them. To delete them: rm -rf /var/lib/private/calico-lab-backup $kept" >&2
else
    rm -rf /var/lib/private/calico-lab-backup "$kept"
    rmdir /var/lib/private 2>/dev/null || true
fi

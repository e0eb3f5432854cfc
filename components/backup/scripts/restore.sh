#!/bin/bash
# Restore the work of notebook $NOTEBOOK at $WHEN into the empty volume $VOLUME: `calico-lab-backup restore`, which says
# what standard input has, what is printed, and what the exit status means.
set -eu
if ! command -v calico-lab-backup >/dev/null; then
    echo "notebook $NOTEBOOK: calico-lab-backup is not installed on this host; next: add the section backup to the" \
        "config, then run 'pulumi up'" >&2
    exit 1
fi
exec calico-lab-backup restore

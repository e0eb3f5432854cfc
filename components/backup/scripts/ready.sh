#!/bin/bash
# Wait until this host can open its repository, which is created the first time. Fail after $SECONDS_ALLOWED seconds.
set -eu
server=calico-lab-backup-server.service
deadline=$((SECONDS + SECONDS_ALLOWED))
until error=$(calico-lab-backup check 2>&1); do
    [ "$SECONDS" -lt "$deadline" ] && sleep 1 && continue
    {
        echo "$HOST: backup: not ready after $SECONDS_ALLOWED s: $error; then run 'pulumi up' again"
        if systemctl is-enabled --quiet "$server" 2>/dev/null && ! systemctl is-active --quiet "$server"; then
            echo "its own server does not run; its last log lines:"
            journalctl -u "$server" -n 10 --no-pager -o cat | cut -c 1-300 || true
        fi
    } >&2
    exit 1
done

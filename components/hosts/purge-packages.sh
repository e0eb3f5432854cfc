#!/bin/bash
# Purge the packages that packages.sh installed under $NAME, and unmask what it masked.
set -eu
record=/var/lib/calico-lab/packages/$NAME
[ -e "$record" ] || exit 0
exec 9>/run/calico-lab-packages.lock
flock 9
if [ -s "$record" ]; then
    log=$(mktemp)
    # shellcheck disable=SC2046 # one word per package is meant
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 purge -y $(cat "$record") >"$log" 2>&1 9>&- || {
        tail -n 20 "$log" >&2
        exit 1
    }
    rm -f "$log"
fi
while read -r unit; do
    systemctl unmask --quiet "$unit" 2>/dev/null
done <"$record.masked"
rm -f "$record" "$record.masked"

#!/bin/bash
# Purge the packages that packages.sh installed under $NAME, and unmask what it masked.
set -eu
record=/var/lib/calico-lab/packages/$NAME
[ -e "$record" ] || exit 0
exec 9>/run/calico-lab-packages.lock
flock 9
# An install that was cut off has not brought all that it was going to.
packages=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n '/^not-installed /!s/.* //p' | sort |
    comm -12 - <(sort "$record"))
if [ -n "$packages" ]; then
    log=$(mktemp)
    # shellcheck disable=SC2086 # one word per package is meant
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 purge -y $packages >"$log" 2>&1 9>&- || {
        tail -n 20 "$log" >&2
        exit 1
    }
    rm -f "$log"
fi
while read -r unit; do
    systemctl unmask --quiet "$unit" 2>/dev/null
done <"$record.masked"
rm -f "$record" "$record.masked"

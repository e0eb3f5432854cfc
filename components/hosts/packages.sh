#!/bin/bash
# Install those of $PACKAGES that are missing and remember them under $NAME; units in $MASK never start.
set -eu
record=/var/lib/calico-lab/packages/$NAME
mkdir -p "$(dirname "$record")"
touch "$record" "$record.masked"
for unit in $MASK; do
    [ "$(systemctl is-enabled "$unit" 2>/dev/null || true)" = masked ] && continue
    systemctl mask --quiet "$unit"
    echo "$unit" >>"$record.masked"
done
missing=()
for package in $PACKAGES; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        echo "apt-get $1 failed: check the apt sources of this host and its way to them" >&2
        exit 1
    }
}
before=$(dpkg-query -W -f '${Package}\n' | sort)
apt update
apt install -y --no-install-recommends "${missing[@]}"
comm -13 <(echo "$before") <(dpkg-query -W -f '${Package}\n' | sort) >>"$record"

#!/bin/bash
# Install those of $PACKAGES that are missing and remember them under $NAME; units in $MASK never start.
set -eu
record=/var/lib/calico-lab/packages/$NAME
mkdir -p "$(dirname "$record")"
# Several components come at once; what one installs shall not be taken for another's.
exec 9>/run/calico-lab-packages.lock
flock 9
touch "$record" "$record.masked"
for unit in $MASK; do
    [ "$(systemctl is-enabled "$unit" 2>/dev/null || true)" = masked ] && continue
    # It says that the unit is not there yet.
    systemctl mask --quiet "$unit" 2>/dev/null
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
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 9>&- || {
        tail -n 20 "$log" >&2
        echo "apt-get $1 failed: check the apt sources of this host and its way to them" >&2
        exit 1
    }
}
installed() { dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort; }
before=$(installed)
apt update
apt install -y --no-install-recommends "${missing[@]}"
comm -13 <(echo "$before") <(installed) >>"$record"

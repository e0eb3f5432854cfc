#!/bin/bash
# Purge the packages that packages.sh recorded under $NAME, and unmask the units that it masked. A package stays if
# another one depends on it that the lab has not installed. All of them stay if another component of the lab needs one of
# them: they are recorded under its name from then on.
set -eu
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
records=/var/lib/calico-lab/packages
needs=/var/lib/calico-lab/packages-needed
record=$records/$NAME
rm -f "$needs/$NAME"
rmdir "$needs" 2>/dev/null || true
[ -e "$record" ] || exit 0
exec 9>/run/calico-lab-packages.lock
flock 9
if [ -s "$record" ] && heir=$(grep -lxFf "$record" "$needs"/* 2>/dev/null | head -n 1) && [ -n "$heir" ]; then
    heir=$records/${heir##*/}
    touch "$heir" "$heir.masked"
    sort -u -o "$heir" "$heir" "$record"
    cat "$record.masked" >>"$heir.masked"
    rm -f "$record" "$record.masked"
    exit 0
fi
own=$(find "$records" -type f ! -name '*.masked' -exec sort -u {} +)
# The packages that would be removed with these and that the lab has not installed.
others() {
    apt-get -q purge --simulate "$@" 2>/dev/null 9>&- | sed -nE 's/^(Purg|Remv) ([^ ]*).*/\2/p' | sort -u |
        comm -23 - <(echo "$own")
}
# After an interrupted installation the record may name packages that are not installed.
mapfile -t packages < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n '/^not-installed /!s/.* //p' |
    sort | comm -12 - <(sort "$record"))
if [ "${#packages[@]}" -gt 0 ] && foreign=$(others "${packages[@]}" | xargs) && [ -n "$foreign" ]; then
    purged=()
    kept=()
    for package in "${packages[@]}"; do
        if [ -z "$(others "${purged[@]}" "$package")" ]; then purged+=("$package"); else kept+=("$package"); fi
    done
    echo "$foreign, which the lab has not installed, depends on packages of the lab; they stay: ${kept[*]}" >&2
    packages=("${purged[@]}")
fi
if [ "${#packages[@]}" -gt 0 ]; then
    log=$(mktemp)
    apt-get -q -o DPkg::Lock::Timeout=300 purge -y "${packages[@]}" >"$log" 2>&1 9>&- || {
        tail -n 20 "$log" >&2
        exit 1
    }
    rm -f "$log"
fi
while read -r unit; do
    systemctl unmask --quiet "$unit" 2>/dev/null
done <"$record.masked"
rm -f "$record" "$record.masked"

#!/bin/bash
# Install those of $PACKAGES that are missing, and record them under $NAME. Mask the units in $MASK. "package|program"
# names a program that some releases have in a package of its own; the package is not missing if any package provides
# the program. No package that the lab has not installed is removed for them.
set -eu
records=/var/lib/calico-lab/packages
record=$records/$NAME
needs=/var/lib/calico-lab/packages-needed
mkdir -p "$records" "$needs"
# Several components are installed at the same time. The lock keeps the record of each correct.
exec 9>/run/calico-lab-packages.lock
flock 9
touch "$record" "$record.masked"
# Whatever installed them: purge-packages.sh of another component leaves them.
for entry in $PACKAGES; do echo "${entry%%|*}"; done >"$needs/$NAME"
for unit in $MASK; do
    [ "$(systemctl is-enabled "$unit" 2>/dev/null || true)" = masked ] && continue
    # Recorded first, because a masked unit without a record would stay masked.
    echo "$unit" >>"$record.masked"
    # It warns that the unit does not exist yet.
    systemctl mask --quiet "$unit" 2>/dev/null
done
# A package also counts under the names that it provides: libelf1t64 provides libelf1.
names=$(dpkg-query -W -f '${db:Status-Status} ${Package}, ${Provides}\n' | sed -n 's/^installed //p' | sed 's/ ([^)]*)//g; s/, /\n/g')
missing=()
for entry in $PACKAGES; do
    package=${entry%%|*}
    if [ "$entry" != "$package" ] && command -v "${entry#*|}" >/dev/null; then continue; fi
    grep -qx -e "$package" <<<"$names" || missing+=("$entry")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Run apt-get with its output in $log. apt-get waits for dpkg's lock by itself, but not for the lock of the package
# lists, which a host that has just booted may be updating.
apt() {
    local deadline=$((SECONDS + 300)) waiting="" advice="" lock
    until LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 9>&-; do
        if [ "$SECONDS" -lt "$deadline" ] && lock=$(grep -m 1 'Could not get lock' "$log"); then
            [ -n "$waiting" ] || echo "apt-get $1 waits for at most 300 s: $lock" >&2
            waiting=yes
            sleep 2
            continue
        fi
        tail -n 20 "$log" >&2
        if grep -qE 'Failed to fetch|Unable to locate|no installation candidate|not have a Release file' "$log"; then
            advice=": check the apt sources of this host and its connection to them"
        fi
        echo "apt-get $1 failed$advice" >&2
        return 1
    done
}
installed() { dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n 's/^installed //p' | sort; }
apt update
wanted=()
for entry in "${missing[@]}"; do
    package=${entry%%|*}
    if [ "$entry" != "$package" ] && ! apt-cache show "$package" >/dev/null 2>&1; then continue; fi
    wanted+=("$package")
done
apt install --simulate --no-install-recommends "${wanted[@]}"
own=$(find "$records" -type f ! -name '*.masked' -exec sort -u {} +)
foreign=$(comm -23 <(sed -n 's/^Remv \([^ ]*\).*/\1/p' "$log" | sort) <(echo "$own") | xargs)
if [ -n "$foreign" ]; then
    echo "${wanted[*]} cannot be installed, because $foreign would be removed; if you do not need it, remove it" \
        "on this host, then run 'pulumi up' again" >&2
    exit 1
fi
# Recorded first, so that an interrupted installation leaves no package without a record.
comm -23 <(sed -n 's/^Inst \([^ ]*\).*/\1/p' "$log" | sort) <(installed) | sort -u -o "$record" - "$record"
if ! apt install -y --no-install-recommends "${wanted[@]}"; then
    # Packages that were not installed leave the record, because somebody else may install them before the next try.
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n '/^not-installed /!s/.* //p' | sort |
        comm -12 - "$record" | sort -o "$record"
    exit 1
fi
for entry in "${missing[@]}"; do
    command -v "${entry#*|}" >/dev/null || [ "${entry#*|}" = "$entry" ] || {
        echo "no package of this release provides the program ${entry#*|}; next: install the program on this host," \
            "then run 'pulumi up' again" >&2
        exit 1
    }
done

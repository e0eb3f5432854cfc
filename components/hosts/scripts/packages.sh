#!/bin/bash
# Install those of $PACKAGES that are missing and remember them under $NAME; units in $MASK never start.
# `package|program` is for where the program is wanted, and some releases have it in a package of its own: where the
# program is there, whoever has brought it, the package is not missing. Nothing that the lab has not installed is
# removed for any of them.
set -eu
records=/var/lib/calico-lab/packages
record=$records/$NAME
mkdir -p "$records"
# Several components come at once; what one installs shall not be taken for another's.
exec 9>/run/calico-lab-packages.lock
flock 9
touch "$record" "$record.masked"
for unit in $MASK; do
    [ "$(systemctl is-enabled "$unit" 2>/dev/null || true)" = masked ] && continue
    # Before it is: one that was masked and then not written down would stay so.
    echo "$unit" >>"$record.masked"
    # It says that the unit is not there yet.
    systemctl mask --quiet "$unit" 2>/dev/null
done
# A package has other names too: libelf1t64 provides libelf1.
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
# Run apt-get, which leaves its words in $log. It waits for dpkg's lock by itself, but not for that of its lists, which a
# machine that was started a moment ago fetches on its own.
apt() {
    local deadline=$((SECONDS + 300)) waits="" advice="" lock
    until LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 9>&-; do
        if [ "$SECONDS" -lt "$deadline" ] && lock=$(grep -m 1 'Could not get lock' "$log"); then
            [ -n "$waits" ] || echo "apt-get $1 waits, for 300 s at the most: $lock" >&2
            waits=yes
            sleep 2
            continue
        fi
        tail -n 20 "$log" >&2
        if grep -qE 'Failed to fetch|Unable to locate|no installation candidate|not have a Release file' "$log"; then
            advice=": check the apt sources of this host and its way to them"
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
    echo "${wanted[*]} cannot be installed beside what is there: $foreign would have to go; remove it there, if it" \
        "may go, and run 'pulumi up' again" >&2
    exit 1
fi
# Before they are there, so that an install that is cut off, or fails half-way, leaves nothing that nobody knows of.
comm -23 <(sed -n 's/^Inst \([^ ]*\).*/\1/p' "$log" | sort) <(installed) | sort -u -o "$record" - "$record"
if ! apt install -y --no-install-recommends "${wanted[@]}"; then
    # What has not come, others may bring before the next try.
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' | sed -n '/^not-installed /!s/.* //p' | sort |
        comm -12 - "$record" | sort -o "$record"
    exit 1
fi
for entry in "${missing[@]}"; do
    command -v "${entry#*|}" >/dev/null || [ "${entry#*|}" = "$entry" ] || {
        echo "no package of this release brings the program ${entry#*|}" >&2
        exit 1
    }
done

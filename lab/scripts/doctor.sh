#!/bin/bash
# What `lab doctor` asks of one machine: facts, one a line, its name in front. It only reads, and the reader decides what
# an absence means.
#   $FLOWS  what has to come through from here: the address and the TCP port of another machine, a line each
set -u
export LC_ALL=C

fact() { sed "s/^/$1 /"; }

# What becomes of a connection to $1, port $2.
through() {
    said=$(timeout 4 bash -c "exec 3<>/dev/tcp/$1/$2" 2>&1)
    case "$?" in
    0) said=connected ;;
    124) said="no answer within 4 s" ;;
    *) said=${said##*: } ;;
    esac
    echo "$1 $2 $said"
}

# How many ICMP messages have come by now that say that something cannot be reached.
unreachable() {
    awk '$1 != "Icmp:" { next }
        at { print $at }
        { for (at = NF; at > 1 && $at != "InDestUnreachs"; at--); }' /proc/net/snmp
}

# shellcheck source=/dev/null
(. /etc/os-release && echo "$PRETTY_NAME") | fact release
nproc | fact cpus
awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo | fact memory
awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo | fact total
df -Pk /var/lib | awk 'NR == 2 { print $4 }' | fact disk
date +%s.%N | fact clock
[ ! -d /var/lib/calico-lab/files ] || echo yes | fact lab
ss -Hltnp 2>/dev/null | fact listener
tried=$(
    while read -r address port; do
        [ -z "$address" ] || through "$address" "$port" &
    done <<<"$FLOWS"
    wait
)
while read -r address port said; do
    [ -n "$address" ] || continue
    # That nobody listens there is the machine's own answer, by TCP; a rule that rejects says the same by ICMP.
    if [ "$said" = "Connection refused" ]; then
        before=$(unreachable)
        through "$address" "$port" >/dev/null
        [ "$before" = "$(unreachable)" ] || said="rejected by a rule"
    fi
    echo "flow $address $port $said"
done <<<"$tried"
cut -d ' ' -f 1 <<<"$FLOWS" | sort -u | while read -r address; do
    [ -z "$address" ] || ip -o -4 route get "$address" 2>/dev/null | fact way
done
echo yes | fact complete

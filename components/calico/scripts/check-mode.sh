#!/bin/bash
# Say whether this host can have a mode of the network: interfaces of the kinds $KINDS ("vxlan wireguard"), the
# dataplane $DATAPLANE, an MTU of $MTU (or nothing) for containers with $OVERHEAD bytes around their packets, a Docker
# network $REMADE (or nothing) made anew, or removed where this host is going to leave it ($LEAVES), and containers with
# addresses in $CIDR (or nothing), in which nothing else may lie. It leaves nothing: what is tried goes at once. Status 3
# means that the host cannot: a key of the config, and why.
set -eu
# Others may ask at the same time.
try=try-$$
trap 'ip link delete "$try" 2>/dev/null || true' EXIT

cannot() {
    echo "$1 $HOST: $2" >&2
    exit 3
}

for kind in $KINDS; do
    key=encapsulation settings="id $$ dstport 14789"
    [ "$kind" != wireguard ] || key=wireguard settings=
    # shellcheck disable=SC2086 # one word per setting is meant
    if said=$(ip link add "$try" type "$kind" $settings 2>&1); then
        ip link delete "$try"
    else
        said=${said#Error: }
        cannot "$key" "its kernel, $(uname -r), makes no $kind interface (${said%.})"
    fi
done

link=$(ip -o -4 address show to "$ADDRESS" | awk '{ print $2; exit }')
if [ "$DATAPLANE" = ebpf ]; then
    # Calico's own limit (felix/bpf/bpf.go); the rest is what its programs hang on and lie in.
    [ "$(printf '%s\n' 5.10 "$(uname -r)" | sort -V | head -n 1)" = 5.10 ] ||
        cannot dataplane "its kernel is $(uname -r), and Calico's programs need 5.10"
    grep -qw bpf /proc/filesystems || cannot dataplane "its kernel, $(uname -r), has no BPF file system"
    ip link add "$try" type veth
    said=$(tc qdisc add dev "$try" clsact 2>&1) && said=
    ip link delete "$try"
    [ -z "$said" ] || cannot dataplane "its kernel, $(uname -r), hangs no programs on interfaces (${said#Error: })"
fi

if [ -n "$MTU" ] && [ -n "$link" ]; then
    allowed=$(($(cat "/sys/class/net/$link/mtu") - OVERHEAD))
    [ "$MTU" -le "$allowed" ] ||
        cannot mtu "its link $link leaves $allowed bytes for a container's packet in this mode"
fi

if [ -n "$REMADE" ]; then
    others=$(docker ps --all --filter "network=$REMADE" --format '{{.Names}} {{.Label "calico-lab.stack"}}' |
        awk 'NF == 1 { printf "%s%s", separator, $1; separator = ", " }')
    [ -z "$others" ] || [ -z "$LEAVES" ] ||
        cannot hosts "it leaves $REMADE, and containers that are not the lab's are attached to it: $others"
    [ -z "$others" ] ||
        cannot pool "$REMADE is made anew, and containers that are not the lab's are attached to it: $others"
fi

# What lies in $CIDR, and would be lost to this host: an address or a network a line, and what it is. The lab's own routes
# are known by their protocols and interfaces, or have no interface at all.
own=' (proto (bird|80)|dev (cali[0-9a-f]{11}|vxlan\.calico|wireguard\.cali))( |$)'
routes() { ip -o -4 route show "$@" | grep ' dev ' | grep -vE "$own"; }
addresses() {
    echo "${SSH_CONNECTION%% *} operator"
    routes | grep -oE ' via [0-9.]+' | sed 's/^ via \(.*\)/\1 gateway/'
    # What systemd-resolved asks stands in a file of its own.
    cat /etc/resolv.conf /run/systemd/resolve/resolv.conf 2>/dev/null |
        sed -nE 's/^nameserver[[:space:]]+([0-9.]+).*/\1 resolver/p'
    ip -o -4 neigh show | grep -vE "$own| (FAILED|INCOMPLETE)" | sed -nE 's/^([0-9.]+) .*/\1 neighbour/p'
    ss -Hntu state established | sed -nE 's/.*[[ ](::ffff:)?([0-9]+(\.[0-9]+){3})[^ ]*:[0-9]+ *$/\2 peer of a connection/p'
}
is_containers() { ip -o -4 route show root "$CIDR" match "$1" | grep -qE "$own"; }
within() {
    awk -v network="$CIDR" '
        function number(address, part) {
            split(address, part, ".")
            return ((part[1] * 256 + part[2]) * 256 + part[3]) * 256 + part[4]
        }
        BEGIN { split(network, part, "/"); first = number(part[1]); size = 2 ^ (32 - part[2]) }
        $1 ~ /^[0-9.]+$/ && number($1) >= first && number($1) < first + size'
}
lost() {
    # A wider route gives way to those of the lab.
    routes root "$CIDR" | sed -nE 's/^([0-9][^ ]*).* dev ([^ ]+).*/\1 route by \2/p'
    addresses | within | sort -u | while read -r there what; do
        is_containers "$there" || echo "$there $what"
    done
}

if [ -n "$CIDR" ]; then
    lost=$(lost | awk '
        { is = $0; sub(/^[^ ]+ /, "", is) }
        !($1 in what) { order[++count] = $1; what[$1] = is; next }
        { what[$1] = what[$1] ", " is }
        END {
            for (i = 1; i <= count && i <= 5; i++) printf "%s%s (%s)", (i > 1 ? ", " : ""), order[i], what[order[i]]
            if (count > 5) printf " and %d more", count - 5
        }')
    [ -z "$lost" ] || cannot cidr "network.cidr $CIDR contains $lost, and this host would send nothing there any \
more; give network.cidr, and the addresses in it, another private network"
fi

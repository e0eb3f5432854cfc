#!/bin/bash
# Say whether this host can have a mode of the network: interfaces of the kinds $KINDS ("vxlan wireguard"), the
# dataplane $DATAPLANE, an MTU of $MTU (or nothing) for containers with $OVERHEAD bytes around their packets, a Docker
# network $REMADE (or nothing) made anew, or removed where this host is going to leave it ($LEAVES), and containers with
# addresses in $CIDR (or nothing). It leaves nothing: what is tried goes at once. Status 3 means that the host cannot: a
# key of the config, and why.
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

if [ -n "$CIDR" ]; then
    # A wider route gives way to those of the lab. Its own are known by their protocols and interfaces, or have no
    # interface at all.
    way=$(ip -o -4 route show root "$CIDR" | grep -E '^[0-9].* dev ' |
        grep -vE ' (proto (bird|80)|dev (cali[0-9a-f]{11}|vxlan\.calico|wireguard\.cali))( |$)' |
        sed -nE '1s/^([^ ]+).* dev ([^ ]+).*/\1 by \2/p')
    [ -z "$way" ] || cannot cidr "it has a way to $way already, which is in network.cidr $CIDR; \
give network.cidr, and the addresses in it, another private network"
fi

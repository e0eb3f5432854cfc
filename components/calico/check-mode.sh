#!/bin/bash
# Say whether this host can have a mode of the network: interfaces of the kinds $KINDS ("vxlan wireguard"), an MTU
# of $MTU (or nothing) for containers with $OVERHEAD bytes around their packets, and a Docker network $REMADE (or
# nothing) made anew. It changes nothing. Status 3 means that the host cannot: a key of the config, and why.
set -eu
cannot() {
    echo "$1 $HOST: $2" >&2
    exit 3
}

for kind in $KINDS; do
    key=encapsulation settings="id 4094 dstport 14789"
    [ "$kind" != wireguard ] || key=wireguard settings=
    # shellcheck disable=SC2086 # one word per setting is meant
    if said=$(ip link add calico-lab-try type "$kind" $settings 2>&1); then
        ip link delete calico-lab-try
    else
        said=${said#Error: }
        cannot "$key" "its kernel, $(uname -r), makes no $kind interface (${said%.})"
    fi
done

link=$(ip -o -4 address show to "$ADDRESS" | awk '{ print $2; exit }')
if [ -n "$MTU" ] && [ -n "$link" ]; then
    allowed=$(($(cat "/sys/class/net/$link/mtu") - OVERHEAD))
    [ "$MTU" -le "$allowed" ] ||
        cannot mtu "its link $link leaves $allowed bytes for a container's packet in this mode"
fi

if [ -n "$REMADE" ]; then
    others=$(docker ps --all --filter "network=$REMADE" --format '{{.Names}} {{.Label "calico-lab.stack"}}' |
        awk 'NF == 1 { printf "%s%s", separator, $1; separator = ", " }')
    [ -z "$others" ] ||
        cannot pool "$REMADE is made anew, and containers that are not the lab's are attached to it: $others"
fi

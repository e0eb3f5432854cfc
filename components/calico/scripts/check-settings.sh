#!/bin/bash
# Check whether this host supports the network settings. Status 3 means that it does not; the message then starts with
# the key of the config. The check changes nothing on the host, because it deletes at once the interfaces that it
# creates.
#   $KINDS      kinds of interfaces that the kernel has to support ("vxlan wireguard")
#   $DATAPLANE  "iptables" or "ebpf"
#   $MTU        the containers' MTU, which has to fit the link with $OVERHEAD bytes of encapsulation; may be empty
#   $NETWORK    the Docker network that is going to be replaced, or removed if $LEAVING is not empty; may be empty
#   $CIDR       the pool, in which no other address or route of the host may lie; may be empty
set -eu
# The process ID, because several checks may run at the same time.
try=try-$$
trap 'ip link delete "$try" 2>/dev/null || true' EXIT

refuse() {
    echo "$1 $HOST: $2" >&2
    exit 3
}

for kind in $KINDS; do
    key=encapsulation settings="id $$ dstport 14789"
    [ "$kind" != wireguard ] || key=wireguard settings=
    # shellcheck disable=SC2086 # one word per setting
    if error=$(ip link add "$try" type "$kind" $settings 2>&1); then
        ip link delete "$try"
    else
        error=${error#Error: }
        refuse "$key" "its kernel, $(uname -r), does not support $kind interfaces (${error%.})"
    fi
done

link=$(ip -o -4 address show to "$ADDRESS" | awk '{ print $2; exit }')
if [ "$DATAPLANE" = ebpf ]; then
    # Felix requires this version (felix/bpf/bpf.go). It pins maps in bpffs, and attaches programs to a clsact qdisc.
    [ "$(printf '%s\n' 5.10 "$(uname -r)" | sort -V | head -n 1)" = 5.10 ] ||
        refuse dataplane "its kernel is $(uname -r), and Felix requires 5.10"
    grep -qw bpf /proc/filesystems || refuse dataplane "its kernel, $(uname -r), has no BPF file system"
    ip link add "$try" type veth
    error=$(tc qdisc add dev "$try" clsact 2>&1) && error=
    ip link delete "$try"
    [ -z "$error" ] || refuse dataplane "its kernel, $(uname -r), cannot attach programs to interfaces (${error#Error: })"
fi

if [ -n "$MTU" ] && [ -n "$link" ]; then
    allowed=$(($(cat "/sys/class/net/$link/mtu") - OVERHEAD))
    [ "$MTU" -le "$allowed" ] ||
        refuse mtu "its link $link leaves $allowed bytes for a container's packet with these settings"
fi

if [ -n "$NETWORK" ]; then
    others=$(docker ps --all --filter "network=$NETWORK" --format '{{.Names}} {{.Label "calico-lab.stack"}}' |
        awk 'NF == 1 { printf "%s%s", separator, $1; separator = ", " }')
    [ -z "$others" ] || [ -z "$LEAVING" ] ||
        refuse hosts "it leaves $NETWORK, and containers that are not the lab's are attached to it: $others"
    [ -z "$others" ] ||
        refuse pool "$NETWORK is replaced, and containers that are not the lab's are attached to it: $others"
fi

# The lab's own routes have these protocols or interfaces, or no interface at all.
own=' (proto (bird|80)|dev (cali[0-9a-f]{11}|vxlan\.calico|wireguard\.cali))( |$)'

# The host's other routes.
routes() { ip -o -4 route show "$@" | grep ' dev ' | grep -vE "$own"; }
# The addresses that the host uses, "<address> <what it is>" a line.
addresses() {
    echo "${SSH_CONNECTION%% *} operator"
    routes | grep -oE ' via [0-9.]+' | sed 's/^ via \(.*\)/\1 gateway/'
    # systemd-resolved writes the servers that it uses to a file of its own.
    cat /etc/resolv.conf /run/systemd/resolve/resolv.conf 2>/dev/null |
        sed -nE 's/^nameserver[[:space:]]+([0-9.]+).*/\1 resolver/p'
    ip -o -4 neigh show | grep -vE "$own| (FAILED|INCOMPLETE)" | sed -nE 's/^([0-9.]+) .*/\1 neighbour/p'
    ss -Hntu state established | sed -nE 's/.*[[ ](::ffff:)?([0-9]+(\.[0-9]+){3})[^ ]*:[0-9]+ *$/\2 peer of a connection/p'
}
# Whether a route of the lab leads to the address.
is_containers() { ip -o -4 route show root "$CIDR" match "$1" | grep -qE "$own"; }
# The lines on standard input whose address lies in $CIDR.
within() {
    awk -v network="$CIDR" '
        function number(address, part) {
            split(address, part, ".")
            return ((part[1] * 256 + part[2]) * 256 + part[3]) * 256 + part[4]
        }
        BEGIN { split(network, part, "/"); first = number(part[1]); size = 2 ^ (32 - part[2]) }
        $1 ~ /^[0-9.]+$/ && number($1) >= first && number($1) < first + size'
}
# The addresses and networks in $CIDR that the host could no longer reach, with what each is. Routes to larger networks
# do not count, because the lab's routes are more specific.
unreachable() {
    routes root "$CIDR" | sed -nE 's/^([0-9][^ ]*).* dev ([^ ]+).*/\1 route by \2/p'
    addresses | within | sort -u | while read -r used what; do
        is_containers "$used" || echo "$used $what"
    done
}

if [ -n "$CIDR" ]; then
    lost=$(unreachable | awk '
        { is = $0; sub(/^[^ ]+ /, "", is) }
        !($1 in what) { order[++count] = $1; what[$1] = is; next }
        { what[$1] = what[$1] ", " is }
        END {
            for (i = 1; i <= count && i <= 5; i++) printf "%s%s (%s)", (i > 1 ? ", " : ""), order[i], what[order[i]]
            if (count > 5) printf " and %d more", count - 5
        }')
    [ -z "$lost" ] || refuse cidr "network.cidr $CIDR contains $lost, which this host could no longer \
reach; give network.cidr, and the addresses in it, another private network"
fi

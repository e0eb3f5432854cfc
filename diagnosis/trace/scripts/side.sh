#!/bin/bash
# One host's side of a packet's way. Watches the first packet of a flow, and the first answer to it, in this host's
# kernel until standard input ends; then prints the facts of the way, one a line, its name in front. What cannot be
# found out is left out. From the environment:
#   $SOURCE, $TARGET  the flow's addresses
#   $SOURCES          the first of them, and others that may hide it here, as members of an nft set
#   $MATCH            the rest of the packet, as an nft expression
#   $CONNECTION       the rest of the connection that it begins, likewise
#   $TAP              both packets as a pcap-filter(7), where programs in the kernel hand them on past all rules
#   $CONTAINERS       the containers at this end; there may be none
#   $NETWORK          the containers' network
#   $LONGEST          seconds after which the watch ends in any case
#
# The watch is a table calico-lab-trace, which marks the two packets and decides nothing. It belongs to the nft
# process that made it: the kernel removes it with that process, however that ends, and that process ends with this.
# With $TAP, the interfaces of the host and of the containers are listened to as well: a packet is seen there before
# the programs when it comes in, and after them when it goes out.
set -u
export LC_ALL=C
felix=/opt/calico-lab/calico/bin/calico-node
# What taps see; one that was killed leaves it to the next, and the lock below keeps them apart.
taps=/run/calico-lab-trace.taps

ask() { timeout 5 "$@" </dev/null 2>/dev/null; }
fact() { sed "s|^|$1 |"; }
fail() {
    echo "trace: $*" >&2
    exit 1
}

# An answer is known by its connection: it may be an ICMP error, or come to an address that hides the container.
table() {
    local answer="ct direction reply ct original ip saddr { $SOURCES } ct original ip daddr $TARGET $CONNECTION"
    local once="limit rate 1/hour burst 1 packets meta nftrace set 1"
    cat <<TABLE
add table inet calico-lab-trace { flags owner; }
add chain inet calico-lab-trace request { type filter hook prerouting priority -450; }
add chain inet calico-lab-trace answer { type filter hook prerouting priority -199; }
add chain inet calico-lab-trace answer-here { type filter hook output priority -199; }
add chain inet calico-lab-trace delivered { type filter hook input priority 1000; }
add chain inet calico-lab-trace forwarded { type filter hook forward priority 1000; }
add chain inet calico-lab-trace leaves { type filter hook postrouting priority 1000; }
add rule inet calico-lab-trace request ip saddr { $SOURCES } ip daddr $TARGET $MATCH $once
add rule inet calico-lab-trace answer $answer $once
add rule inet calico-lab-trace answer-here $answer $once
add chain inet calico-lab-trace complete
TABLE
}

# Wait until a condition holds, and not longer than ten seconds.
until_true() {
    local _
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    return 1
}

# A listener to the kernel's traces: netlink family 12, group 9.
listens() { awk '$2 == 12 && $4 ~ /1..$/ { found = 1 } END { exit !found }' /proc/net/netlink; }

# The process of container $1, and the ID of its end of the network.
container() {
    ask docker inspect --format \
        "{{.State.Pid}} {{with index .NetworkSettings.Networks \"$NETWORK\"}}{{.EndpointID}}{{end}}" "$1"
}

# Listen on all interfaces and write what comes to file $1; the other arguments enter another network namespace.
tap() {
    local seen=$1
    shift
    timeout "$LONGEST" "$@" tcpdump --immediate-mode -i any -n -t -l -v "$TAP" </dev/null 9>&- >"$seen" 2>"$seen.said" &
    listeners+=($!)
    until_true grep -q 'listening on' "$seen.said" || fail "tcpdump: $(head -n 1 "$seen.said")"
}

# What Felix' programs have counted at $1 (before or after): each rule's decisions, and what was dropped by policy.
programs() {
    local name pid endpoint end
    for name in $CONTAINERS; do
        read -r pid endpoint < <(container "$name")
        end=cali${endpoint:0:11}
        ask "$felix" -bpf policy dump "$end" all | fact "program /$name $1"
        ask "$felix" -bpf counters dump --iface="$end" |
            awk -F '|' '$2 ~ /[A-Z]/ { sort = $2 } sort ~ /Dropped/ && $3 ~ /by policy/ { print $4 + 0, $5 + 0 }' |
            fact "drops /$name $1"
    done
}

listen() {
    local name pid endpoint
    command -v tcpdump >/dev/null || fail "tcpdump is not installed on this host"
    rm -rf "$taps"
    mkdir -p "$taps/in"
    programs before >"$taps/before"
    tap "$taps/host"
    for name in $CONTAINERS; do
        read -r pid endpoint < <(container "$name")
        tap "$taps/in/$name" nsenter --target "$pid" --net
    done
}

watch() {
    local program owner monitor complaint listeners=()
    for program in nft xtables-monitor flock; do
        command -v "$program" >/dev/null || fail "$program is not installed on this host"
    done
    exec 9>/run/calico-lab-trace.lock
    flock -n 9 || fail "somebody else traces on this host; try again in some seconds"
    # Bash closes the coprocess's pipe in whatever else it starts: nft ends with this shell alone.
    coproc OWNER { exec nft -i 2>&1 9>&-; }
    owner=$OWNER_PID
    trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$taps"' EXIT
    # All on one line is one transaction: nft takes the whole of it, or says why not.
    printf '%s\n' "$(table | tr '\n' ';')" >&"${OWNER[1]}"
    until_true nft list chain inet calico-lab-trace complete || {
        read -r -t 1 -u "${OWNER[0]}" complaint
        fail "nft: ${complaint:-does not answer}"
    }
    timeout "$LONGEST" xtables-monitor --trace </dev/null 9>&- &
    monitor=$!
    until_true listens || fail "xtables-monitor does not listen"
    [ -z "$TAP" ] || listen
    echo ready
    read -r -t "$LONGEST" _
    # What the kernel has told may still be on its way to the monitor.
    sleep 0.2
    kill "$monitor" "$owner" "${listeners[@]}" 2>/dev/null
    wait "$monitor" "$owner" "${listeners[@]}" 2>/dev/null
    exec 9>&-
}

# What network namespace $1 has; the other arguments are the command that enters it.
namespace_facts() {
    local name=$1 object
    shift
    for object in address neighbour; do
        ask "$@" ip -json "$object" show | fact "$object $name"
    done
    for object in vxlan wireguard; do
        ask "$@" ip -json -details link show type "$object" | fact "$object $name"
    done
    ask "$@" ip -json -details route show table main | fact "route $name"
}

container_facts() {
    local pid endpoint
    read -r pid endpoint < <(container "$1")
    [ -n "${pid:-}" ] || return 0
    namespace_facts "/$1" nsenter --target "$pid" --net
    [ -r /etc/calico-lab/calico/calico.env ] || return 0
    (
        set -a
        # shellcheck source=/dev/null
        . /etc/calico-lab/calico/calico.env
        # Calico makes an endpoint's name of these, and doubles the hyphens in them.
        ask /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch get workloadendpoint \
            --namespace libnetwork "${NODENAME//-/--}-libnetwork-libnetwork-$endpoint" -o json
    ) | tr -d '\n' | sed "s|^..*\$|endpoint /$1 &\n|"
}

host_facts() {
    local address link from
    namespace_facts host
    # Where a rule has another table asked before the main one, that is not what the main one says.
    from=$(ask ip -oneline route get "$SOURCE" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
    ask ip -json route get "$TARGET" from "$SOURCE" iif "$from" | fact taken
    # Behind which host VXLAN finds which MAC address.
    ask bridge -json fdb show | fact tunnel
    for address in "$SOURCE" "$TARGET"; do
        ask birdc -s /run/calico/bird.ctl show route for "$address" | grep -F '[' | fact bird
    done
    for link in /proc/sys/net/ipv4/conf/cali*; do
        echo "${link##*/} $(ask cat "$link/proxy_arp")" | fact proxy-arp
    done
    # The names of policies and profiles stand in the comment of their chains' first rules.
    ask iptables -w 2 -S | grep -E '^-A cali-(pi|po|pri|pro)-' | fact rule
}

tap_facts() {
    local name
    cat "$taps/before"
    programs after
    ask "$felix" -bpf routes dump | fact map
    fact "tap host" <"$taps/host"
    for name in $CONTAINERS; do
        fact "tap /$name" <"$taps/in/$name"
    done
}

main() {
    local name
    watch
    echo "[facts]"
    [ -z "$TAP" ] || tap_facts
    for name in $CONTAINERS; do
        container_facts "$name"
    done
    host_facts
    echo yes | fact complete
}

# The last line: what follows on standard input is no script any more, but the operator's hold on the watch.
main

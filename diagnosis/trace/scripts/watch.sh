#!/bin/bash
# Watch the first packet of a flow and the first answer to it in this host's kernel, until standard input ends. Then print
# the facts of the path: `<name> <value>`, a line each. A fact that cannot be found out is left out.
#   $SOURCE, $TARGET  the flow's addresses
#   $SOURCES          $SOURCE, and the addresses that NAT may replace it with, as elements of an nft set
#   $MATCH            the rest of the first packet's match, as an nft expression
#   $CONNECTION       the rest of the connection's match, as an nft expression
#   $CAPTURE          pcap-filter(7) for both packets, with dataplane ebpf; else empty
#   $CONTAINERS       source and target, if they are containers on this host
#   $NETWORK          the container network
#   $MAX_SECONDS      when the watch ends in any case
#
# The table calico-lab-trace marks the two packets and has no verdict. It belongs to the nft process that created it (flags
# owner): the kernel deletes it when that process ends, and that process ends with this shell. With $CAPTURE, tcpdump runs
# on the interfaces of the host and of the containers too. It sees an incoming packet before the interface's BPF program,
# and an outgoing packet after it.
set -u
export LC_ALL=C
felix=/opt/calico-lab/calico/bin/calico-node
# A killed run leaves it to the next one. The lock below allows one run at a time.
captures=/run/calico-lab-trace.captures

ask() { timeout 5 "$@" </dev/null 2>/dev/null; }
fact() { sed "s|^|$1 |"; }
fail() {
    echo "trace: $*" >&2
    exit 1
}

# The answer is matched by its connection, because it may be an ICMP error, or go to an address that NAT replaced.
table() {
    local answer="ct direction reply ct original ip saddr { $SOURCES } ct original ip daddr $TARGET $CONNECTION"
    local once="limit rate 1/hour burst 1 packets meta nftrace set 1"
    cat <<TABLE
add table inet calico-lab-trace { flags owner; }
add chain inet calico-lab-trace request { type filter hook prerouting priority -450; }
add chain inet calico-lab-trace answer { type filter hook prerouting priority -199; }
add chain inet calico-lab-trace answer-output { type filter hook output priority -199; }
add chain inet calico-lab-trace delivered { type filter hook input priority 1000; }
add chain inet calico-lab-trace forwarded { type filter hook forward priority 1000; }
add chain inet calico-lab-trace sent { type filter hook postrouting priority 1000; }
add rule inet calico-lab-trace request ip saddr { $SOURCES } ip daddr $TARGET $MATCH $once
add rule inet calico-lab-trace answer $answer $once
add rule inet calico-lab-trace answer-output $answer $once
add chain inet calico-lab-trace complete
TABLE
}

# Wait until a command succeeds, for at most 10 seconds.
wait_until() {
    local _
    for _ in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    return 1
}

# Whether a program receives the kernel's traces: netlink family 12, group 9.
receives_traces() { awk '$2 == 12 && $4 ~ /1..$/ { found = 1 } END { exit !found }' /proc/net/netlink; }

# The process ID of container $1, and the ID of its endpoint on the network.
container() {
    ask docker inspect --format \
        "{{.State.Pid}} {{with index .NetworkSettings.Networks \"$NETWORK\"}}{{.EndpointID}}{{end}}" "$1"
}

# Capture on all interfaces, to file $1. The other arguments are a command that enters a network namespace.
capture() {
    local file=$1
    shift
    timeout "$MAX_SECONDS" "$@" tcpdump --immediate-mode -i any -n -t -l -v "$CAPTURE" </dev/null 9>&- >"$file" \
        2>"$file.errors" &
    tcpdumps+=($!)
    wait_until grep -q 'listening on' "$file.errors" || fail "tcpdump: $(head -n 1 "$file.errors")"
}

# The counters of the containers' BPF programs at moment $1 (before, after): each rule's, and the packets that policies
# dropped.
bpf_facts() {
    local name pid endpoint interface
    for name in $CONTAINERS; do
        read -r pid endpoint < <(container "$name")
        interface=cali${endpoint:0:11}
        ask "$felix" -bpf policy dump "$interface" all | fact "bpf-program /$name $1"
        ask "$felix" -bpf counters dump --iface="$interface" |
            awk -F '|' '$2 ~ /[A-Z]/ { kind = $2 } kind ~ /Dropped/ && $3 ~ /by policy/ { print $4 + 0, $5 + 0 }' |
            fact "bpf-drops /$name $1"
    done
}

start_captures() {
    local name pid endpoint
    command -v tcpdump >/dev/null || fail "tcpdump is not installed on this host"
    rm -rf "$captures"
    mkdir -p "$captures/containers"
    bpf_facts before >"$captures/before"
    capture "$captures/host"
    for name in $CONTAINERS; do
        read -r pid endpoint < <(container "$name")
        capture "$captures/containers/$name" nsenter --target "$pid" --net
    done
}

watch() {
    local program owner monitor error tcpdumps=()
    for program in nft xtables-monitor flock; do
        command -v "$program" >/dev/null || fail "$program is not installed on this host"
    done
    exec 9>/run/calico-lab-trace.lock
    flock -n 9 || fail "another trace runs on this host; try again in some seconds"
    # Other processes do not inherit the pipe of a coprocess, so nft ends when this shell ends.
    coproc OWNER { exec nft -i 2>&1 9>&-; }
    owner=$OWNER_PID
    trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$captures"' EXIT
    # One line is one transaction: nft applies all of it, or prints an error.
    printf '%s\n' "$(table | tr '\n' ';')" >&"${OWNER[1]}"
    wait_until nft list chain inet calico-lab-trace complete || {
        read -r -t 1 -u "${OWNER[0]}" error
        fail "nft: ${error:-does not answer}"
    }
    timeout "$MAX_SECONDS" xtables-monitor --trace </dev/null 9>&- &
    monitor=$!
    wait_until receives_traces || fail "xtables-monitor does not listen"
    [ -z "$CAPTURE" ] || start_captures
    echo ready
    read -r -t "$MAX_SECONDS" _
    # The last traces may not have reached the monitor yet.
    sleep 0.2
    kill "$monitor" "$owner" "${tcpdumps[@]}" 2>/dev/null
    wait "$monitor" "$owner" "${tcpdumps[@]}" 2>/dev/null
    exec 9>&-
}

# The facts of network namespace $1. The other arguments are a command that enters it.
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
    [ -r /etc/calico-lab/calico/environment.sh ] || return 0
    # A workload endpoint's name has these parts, with hyphens in a part doubled.
    (
        export CALICOCTL_SECONDS=5
        # shellcheck source=/dev/null
        . /etc/calico-lab/calico/environment.sh
        calicoctl get workloadendpoint --namespace libnetwork "${NODENAME//-/--}-libnetwork-libnetwork-$endpoint" \
            -o json </dev/null 2>/dev/null
    ) | tr -d '\n' | sed "s|^..*\$|endpoint /$1 &\n|"
}

host_facts() {
    local address link from
    namespace_facts host
    # Policy routing may choose another table than main.
    from=$(ask ip -oneline route get "$SOURCE" | sed -n 's/.* dev \([^ ]*\).*/\1/p')
    ask ip -json route get "$TARGET" from "$SOURCE" iif "$from" | fact lookup
    # VXLAN's forwarding table: MAC address to host.
    ask bridge -json fdb show | fact fdb
    for address in "$SOURCE" "$TARGET"; do
        ask birdc -s /run/calico/bird.ctl show route for "$address" | grep -F '[' | fact bird
    done
    for link in /proc/sys/net/ipv4/conf/cali*; do
        echo "${link##*/} $(ask cat "$link/proxy_arp")" | fact proxy-arp
    done
    # The comments of these chains' first rules name their policies and profiles.
    ask iptables -w 2 -S | grep -E '^-A cali-(pi|po|pri|pro)-' | fact rule
}

capture_facts() {
    local name
    cat "$captures/before"
    bpf_facts after
    ask "$felix" -bpf routes dump | fact bpf-route
    fact "capture host" <"$captures/host"
    for name in $CONTAINERS; do
        fact "capture /$name" <"$captures/containers/$name"
    done
}

main() {
    local name
    watch
    echo "[facts]"
    [ -z "$CAPTURE" ] || capture_facts
    for name in $CONTAINERS; do
        container_facts "$name"
    done
    host_facts
    echo yes | fact complete
}

# The last line: what follows on standard input is not part of the script. Its end ends the watch.
main

#!/bin/bash
# Wait until Calico is ready on this host. Print what is missing and fail after $SECONDS_ALLOWED seconds. Ready means:
# Felix and the Docker driver are ready, BIRD has an established session with each of $PEERS ("<name>=<address> ..."),
# and the WireGuard interface has its address if $WIREGUARD is not empty. confd names sessions "$SESSION_<address>".
set -eu

# Whether the service on a local port answers 200. Uses bash only, because a host may have no HTTP client.
is_ready() {
    local status=
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET /readiness HTTP/1.0\r\n\r\n' >&3 2>/dev/null || true
    read -r -t 2 status <&3 2>/dev/null || true
    exec 3>&-
    [[ $status == *" 200 "* ]]
}

# The state of the session with a peer, as birdc prints it: "up 12:00:00 Established", "start ... Connect ...".
session() {
    birdc -s /run/calico/bird.ctl show protocols 2>/dev/null |
        awk -v name="${SESSION}_${1//./_}" '$1 == name { $1 = $2 = $3 = ""; print }'
}

# Whether the WireGuard interface has its address; if not, allocates it. calico-lab-calico-startup.service allocates
# tunnel addresses too, but the first time it runs before Felix has created the interface and published its public key,
# which the allocation requires. Call this only when that unit has finished, because two allocations at once would lose
# the address.
has_address() {
    [ -z "$(ip -o -4 address show dev wireguard.cali 2>/dev/null)" ] || return 0
    (
        # shellcheck source=components/calico/scripts/environment.sh
        . /etc/calico-lab/calico/environment.sh
        exec timeout 30 /opt/calico-lab/calico/bin/calico-node -allocate-tunnel-addrs -allocate-tunnel-addrs-run-once
    ) >/dev/null 2>&1 || true
    return 1
}

missing() {
    if ! systemctl is-active --quiet calico-lab-calico-startup.service; then
        echo calico-lab-calico-startup
    elif [ -n "$WIREGUARD" ]; then
        has_address || echo wireguard
    fi
    is_ready 9099 || echo calico-lab-felix
    is_ready 9101 || echo calico-lab-docker-driver
    for peer in $PEERS; do
        [[ $(session "${peer#*=}") == *Established* ]] || echo "session:$peer"
    done
}

deadline=$((SECONDS + SECONDS_ALLOWED))
until reasons=$(missing) && [ -z "$reasons" ]; do
    [ "$SECONDS" -lt "$deadline" ] && sleep 0.2 && continue
    {
        echo "$HOST: calico: the network is not ready after $SECONDS_ALLOWED s"
        for reason in $reasons; do
            case "$reason" in
            session:*)
                peer=${reason#session:}
                address=${peer#*=}
                state=$(session "$address")
                echo "no BGP session with ${peer%%=*} ($address):${state:-" BIRD does not know this peer yet"}"
                ;;
            wireguard)
                echo "wireguard.cali has no address: Felix has not created it or not published its public key yet"
                echo "  next: 'journalctl -u calico-lab-felix' on $HOST"
                ;;
            *)
                echo "$reason is $(systemctl show -P ActiveState "$reason.service"); its last log lines:"
                journalctl -u "$reason.service" -n 10 --no-pager -o cat | cut -c 1-300 || true
                echo "  next: 'journalctl -u $reason' on $HOST"
                ;;
            esac
        done
        if [[ $reasons == *session:* ]]; then
            echo "last log lines of BIRD and confd on $HOST:"
            journalctl -u calico-lab-bird -u calico-lab-confd -n 10 --no-pager -o cat | cut -c 1-300 || true
        fi
        echo "then run 'pulumi up' again"
    } >&2
    exit 1
done

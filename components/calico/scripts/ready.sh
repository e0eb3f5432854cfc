#!/bin/bash
# Wait until this host's part of the network works: Felix and the Docker driver are ready, BIRD has a session with each
# of $PEERS ("<name>=<address> ..."), which confd calls "$SESSION_<address>", and the end of WireGuard, where there is
# one ($WIREGUARD), has its address. If not within $SECONDS_ALLOWED, say what is missing.
set -eu

# Whether the service at a local port says that it is ready. (A host has no HTTP client.)
is_ready() {
    local status=
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || return 1
    printf 'GET /readiness HTTP/1.0\r\n\r\n' >&3 2>/dev/null || true
    read -r -t 2 status <&3 2>/dev/null || true
    exec 3>&-
    [[ $status == *" 200 "* ]]
}

# The state of the session with a peer, in BIRD's words: "up 12:00:00 Established", "start ... Connect ...".
session() {
    birdc -s /run/calico/bird.ctl show protocols 2>/dev/null |
        awk -v name="${SESSION}_${1//./_}" '$1 == name { $1 = $2 = $3 = ""; print }'
}

# Whether the end of WireGuard has its address. Calico takes one where the host's public key is known, and a Felix that
# has just made the interface tells it only after the services' start, which takes those of other tunnels. To have it
# taken twice at once would lose it: so not before the start is over.
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
until lacking=$(missing) && [ -z "$lacking" ]; do
    [ "$SECONDS" -lt "$deadline" ] && sleep 0.2 && continue
    {
        echo "$HOST: calico: the network is not ready after $SECONDS_ALLOWED s"
        for one in $lacking; do
            case "$one" in
            session:*)
                peer=${one#session:}
                address=${peer#*=}
                state=$(session "$address")
                echo "no BGP session with ${peer%%=*} ($address):${state:-" BIRD does not know this peer yet"}"
                ;;
            wireguard)
                echo "wireguard.cali has no address: Felix has not made it, or Calico does not know its public key yet"
                echo "  next: 'journalctl -u calico-lab-felix' on $HOST"
                ;;
            *)
                echo "$one is $(systemctl show -P ActiveState "$one.service"); the last that it wrote:"
                journalctl -u "$one.service" -n 10 --no-pager -o cat | cut -c 1-300 || true
                echo "  next: 'journalctl -u $one' on $HOST"
                ;;
            esac
        done
        if [[ $lacking == *session:* ]]; then
            echo "the last that BIRD and confd wrote on $HOST:"
            journalctl -u calico-lab-bird -u calico-lab-confd -n 10 --no-pager -o cat | cut -c 1-300 || true
        fi
        echo "then run 'pulumi up' again"
    } >&2
    exit 1
done

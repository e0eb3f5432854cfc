#!/bin/bash
# Send the first packets of a flow, and print what the sender gets: with ICMP from three echo-requests (one when repeated), with TCP from one
# connection, with UDP from one empty line, for which an answer or an error has one second.
#   $DESTINATION  an address
#   $PROTOCOL     tcp, udp or icmp
#   $PORT         for tcp and udp
#   $CONTAINER    the container whose network namespace the packets come from; empty: this host's
#   $DURATION     how many seconds to repeat this, about once a second; 0: once
set -eu
export LC_ALL=C
[ "$PROTOCOL" != icmp ] || command -v ping >/dev/null || {
    echo "ping is not installed: apt-get install iputils-ping" >&2
    exit 1
}
enter=()
if [ -n "$CONTAINER" ]; then
    enter=(nsenter --target "$(docker inspect --format '{{.State.Pid}}' "$CONTAINER")" --net --)
fi
# When repeated, each second has a new connection.
pings=1 connect_seconds=1
[ "$DURATION" != 0 ] || pings=3 connect_seconds=3

# shellcheck disable=SC2016 # the inner shell expands its own arguments
send() {
    case $PROTOCOL in
        icmp) "${enter[@]}" ping -n -c "$pings" -i 0.2 -W 1 "$DESTINATION" || true ;;
        tcp)
            "${enter[@]}" timeout "$connect_seconds" bash -c 'exec 3<>"/dev/tcp/$0/$1" && echo connected' \
                "$DESTINATION" "$PORT" || echo "status $?"
            ;;
        udp)
            "${enter[@]}" bash -c 'exec 3<>"/dev/udp/$0/$1"; echo >&3; read -r -t 1 -n 1 -u 3 && echo answered' \
                "$DESTINATION" "$PORT" || echo "status $?"
            ;;
    esac </dev/null 2>&1
}

send
end=$((SECONDS + DURATION))
while [ "$DURATION" != 0 ] && [ "$SECONDS" -lt "$end" ]; do
    sleep 1
    send
done

#!/bin/bash
# Send the first packets of a flow from container $CONTAINER to $TARGET, and print what came of it there: with ICMP
# three echo-requests, else one connection, or one datagram with a second's time for an error to come back.
# $PROTOCOL is tcp, udp or icmp. The programs are the host's own, in the container's network.
set -eu
export LC_ALL=C
[ "$PROTOCOL" != icmp ] || command -v ping >/dev/null || {
    echo "ping is not installed: apt-get install iputils-ping" >&2
    exit 1
}
pid=$(docker inspect --format '{{.State.Pid}}' "$CONTAINER")
inside() { nsenter --target "$pid" --net -- "$@" </dev/null 2>&1; }
# shellcheck disable=SC2016 # for the inner shell
case $PROTOCOL in
    icmp) inside ping -n -c 3 -i 0.2 -W 1 "$TARGET" || true ;;
    tcp) inside timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1" && echo connected' "$TARGET" "$PORT" || echo "status $?" ;;
    udp)
        inside bash -c 'exec 3<>"/dev/udp/$0/$1"; echo >&3; read -r -t 1 -n 1 -u 3 && echo answered' "$TARGET" "$PORT" ||
            echo "status $?"
        ;;
esac

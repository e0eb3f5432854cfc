#!/bin/bash
# Send the first packet of a flow, once a second: opens connections and closes them, and says nothing on them.
#
# From the environment: DESTINATION, PROTOCOL (tcp, udp or icmp), PORT, DURATION in seconds.
set -eu
[ "$PROTOCOL" != icmp ] || command -v ping >/dev/null || {
    echo "ping is not installed: apt-get install iputils-ping" >&2
    exit 1
}

send() {
    case $PROTOCOL in
        tcp | udp)
            # shellcheck disable=SC2016 # for the inner shell
            timeout 1 bash -c 'exec 3<>"/dev/$0/$1/$2"; [ "$0" = tcp ] || echo >&3' \
                "$PROTOCOL" "$DESTINATION" "$PORT"
            ;;
        icmp) ping -n -c 1 -W 1 "$DESTINATION" ;;
    esac
}

end=$((SECONDS + DURATION))
while [ "$SECONDS" -lt "$end" ]; do
    # Whether it comes through is told by the host that it is sent to.
    send </dev/null >/dev/null 2>&1 || true
    sleep 1
done

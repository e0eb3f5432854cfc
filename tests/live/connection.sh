#!/bin/bash
# Open a TCP connection from container $NAME to $PEER, where an echo waits, and send a number on it every tenth of a
# second for as long as each comes back. The last one stands in /tmp/count, whole whenever it is read; what went wrong
# in /tmp/lost.
set -eu
docker exec --detach "$NAME" bash -c '
    for _ in $(seq 300); do
        { exec 3<>"/dev/tcp/$0/5007"; } 2>/dev/null && break
        sleep 0.1
    done
    number=0
    while number=$((number + 1)); do
        echo "$number" >&3 || break
        read -r -t 30 answer <&3 || break
        [ "$answer" = "$number" ] || break
        echo "$number" >/tmp/count.new
        mv /tmp/count.new /tmp/count
        sleep 0.1
    done
    echo "number $number was answered with ${answer:-nothing}" >/tmp/lost' "$PEER"

#!/bin/bash
# Try TCP to each of $PORTS, and a ping, at $TARGET, from $SOURCE where it is given. Prints for each what came:
# open, refused (an answer that says no), or silent (none).
set -eu
outcome() {
    case "$1" in
    *succeeded* | *"bytes from"*) echo open ;;
    *refused* | *nreachable* | *rohibited*) echo refused ;;
    *) echo silent ;;
    esac
}
for port in $PORTS; do
    # shellcheck disable=SC2086 # an empty $SOURCE leaves the option out
    (echo "tcp/$port $(outcome "$(nc -v -z -w 3 ${SOURCE:+-s $SOURCE} "$TARGET" "$port" 2>&1)")") &
done
# shellcheck disable=SC2086
(echo "ping $(outcome "$(ping -c 3 -i 0.3 -W 1 ${SOURCE:+-I $SOURCE} "$TARGET" 2>&1)")") &
wait

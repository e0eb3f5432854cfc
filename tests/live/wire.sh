#!/bin/bash
# Ping $PEER from container $NAME, and print what of it this host's wire carries: ICMP of the containers, and
# anything that could hide it (IP in IP, VXLAN, WireGuard).
set -eu
route=$(ip -o route get "$VIA")
interface=${route##* dev }
interface=${interface%% *}
seen=$(mktemp)
said=$(mktemp)
trap 'rm -f "$seen" "$said"' EXIT
timeout 30 tcpdump -nn -l -i "$interface" "net $CIDR or ip proto 4 or udp port 4789 or udp port 51820" >"$seen" 2>"$said" &
capture=$!
for _ in $(seq 100); do
    grep -q 'listening on' "$said" && break
    sleep 0.1
done
grep -q 'listening on' "$said" || { cat "$said" >&2; exit 1; }
docker exec "$NAME" ping -q -c 3 -i 0.2 -W 2 "$PEER" >&2
for _ in $(seq 50); do
    [ "$(grep -c -e 'ICMP echo' -e '\.51820: ' "$seen")" -ge 6 ] && break
    sleep 0.1
done
kill "$capture"
wait "$capture" || true
cat "$seen"

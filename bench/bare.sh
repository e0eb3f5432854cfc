#!/bin/bash
# Creates the shortest path of a container's packets through this host: a network namespace $SPACE with address $ADDRESS
# behind a veth pair, whose interface on the host is $LINK, and a route via $VIA to $PEER, which is the same on the other
# host. No table has a rule for them. With $TRACKED, one rule makes the kernel track connections, as on every Docker host.
set -eu
ip netns delete "$SPACE" 2>/dev/null || true
ip netns add "$SPACE"
ip link add "$LINK" address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns "$SPACE"
ip link set "$LINK" up
# The guest's next hop is an unused address, for which the host answers ARP requests, as in the lab.
echo 1 >"/proc/sys/net/ipv4/conf/$LINK/proxy_arp"
echo 0 >"/proc/sys/net/ipv4/neigh/$LINK/proxy_delay"
echo 1 >/proc/sys/net/ipv4/ip_forward
ip -n "$SPACE" link set lo up
ip -n "$SPACE" address add "$ADDRESS/32" dev eth0
ip -n "$SPACE" link set eth0 up
ip -n "$SPACE" route add 169.254.1.1 dev eth0 scope link
ip -n "$SPACE" route add default via 169.254.1.1
ip route replace "$ADDRESS" dev "$LINK"
ip route replace "$PEER" via "$VIA"
[ -z "${TRACKED:-}" ] || iptables -A FORWARD -m conntrack --ctstate NEW,ESTABLISHED,RELATED -j ACCEPT

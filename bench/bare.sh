#!/bin/bash
# Make of this container the barest host that a container's packets could cross: a network namespace "guest" with
# address $ADDRESS behind a veth pair, and a route to $PEER, the guest of the host $VIA. There is no rule in any table.
# With $TRACKED, one rule has the kernel keep track of connections, as every host of Docker does.
set -eu
ip netns add guest
ip link add veth0 address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns guest
ip link set veth0 up
# The guest's next hop is nobody's address, for which the host answers: as in the lab.
echo 1 >/proc/sys/net/ipv4/conf/veth0/proxy_arp
echo 0 >/proc/sys/net/ipv4/neigh/veth0/proxy_delay
echo 1 >/proc/sys/net/ipv4/ip_forward
ip -n guest link set lo up
ip -n guest address add "$ADDRESS/32" dev eth0
ip -n guest link set eth0 up
ip -n guest route add 169.254.1.1 dev eth0 scope link
ip -n guest route add default via 169.254.1.1
ip route add "$ADDRESS" dev veth0
ip route add "$PEER" via "$VIA"
[ -z "${TRACKED:-}" ] || iptables -A FORWARD -m conntrack --ctstate NEW,ESTABLISHED,RELATED -j ACCEPT

#!/bin/sh
# Print each rule in the lab's chains with its counters: `<program> [packets:bytes] -A <chain> ...`.
set -eu

echo "[counters]"
for program in iptables ip6tables; do
    if [ "$program" = iptables ] || [ -e /proc/net/if_inet6 ]; then
        "$program-save" -c -t filter | sed -n "s/^\[[0-9:]*\] -A CALICO-LAB-/$program &/p"
    fi
done

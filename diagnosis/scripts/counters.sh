#!/bin/sh
# Print the rules of our chains with their counters, a line each: `iptables [packets:bytes] -A CHAIN …`.
set -eu

echo "[counters]"
for program in iptables ip6tables; do
    if [ "$program" = iptables ] || [ -e /proc/net/if_inet6 ]; then
        "$program-save" -c -t filter | sed -n "s/^\[[0-9:]*\] -A CALICO-LAB-/$program &/p"
    fi
done

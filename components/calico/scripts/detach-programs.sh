#!/bin/bash
# Take the programs that Felix has loaded into the kernel off this host's interfaces.
set -eu
filters() { tc filter show dev "$@" 2>/dev/null; }

for link in $(ip -o link show | sed -nE 's/^[0-9]+: ([^:@]+)[:@].*/\1/p'); do
    taken=
    for way in ingress egress; do
        for preference in $(filters "$link" "$way" | sed -nE 's/.* pref ([0-9]+) .* name cali_tc_.*/\1/p' | sort -u); do
            tc filter delete dev "$link" "$way" pref "$preference"
            taken=yes
        done
    done
    # What programs hang on goes with the last of them.
    [ -z "$taken" ] || [ -n "$(filters "$link" ingress; filters "$link" egress)" ] || tc qdisc delete dev "$link" clsact
done

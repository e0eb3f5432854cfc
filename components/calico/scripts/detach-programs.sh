#!/bin/bash
# Detach Felix's eBPF programs from this host's interfaces.
set -eu
filters() { tc filter show dev "$@" 2>/dev/null; }

for link in $(ip -o link show | sed -nE 's/^[0-9]+: ([^:@]+)[:@].*/\1/p'); do
    detached=
    for direction in ingress egress; do
        for preference in $(filters "$link" "$direction" | sed -nE 's/.* pref ([0-9]+) .* name cali_tc_.*/\1/p' | sort -u); do
            tc filter delete dev "$link" "$direction" pref "$preference"
            detached=yes
        done
    done
    # The qdisc is deleted with the last program, because it serves nothing else.
    [ -z "$detached" ] || [ -n "$(filters "$link" ingress; filters "$link" egress)" ] || tc qdisc delete dev "$link" clsact
done

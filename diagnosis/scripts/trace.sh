#!/bin/sh
# Print each rule that the next packets of a flow meet on this host, whoever's rule it is, for some seconds.
#
# From the environment: FAMILY (ip or ip6), SOURCE, DESTINATION, MATCH (an nft expression), DURATION. A table of our
# own marks the packets, two a second, before any other; it decides nothing, and goes when this ends. What a run
# that was killed has left goes with the next.
set -eu

trace() {
    for program in nft xtables-monitor flock; do
        command -v "$program" >/dev/null || {
            echo "trace: $program is not installed on this host" >&2
            exit 1
        }
    done
    exec 9>/run/calico-lab-trace.lock
    flock -n 9 || {
        echo "trace: somebody else traces on this host; try again in some seconds" >&2
        exit 1
    }
    trap 'nft delete table inet calico-lab-trace 2>/dev/null || true' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    nft -f - <<TABLE
table inet calico-lab-trace
delete table inet calico-lab-trace
table inet calico-lab-trace {
    chain prerouting {
        type filter hook prerouting priority -450
        $FAMILY saddr $SOURCE $FAMILY daddr $DESTINATION $MATCH limit rate 2/second meta nftrace set 1
    }
}
TABLE
    timeout "$DURATION" xtables-monitor --trace </dev/null || [ $? -eq 124 ]
}

# In a shell of its own, so that the table is gone before whatever comes after this.
(trace)

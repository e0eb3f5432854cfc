#!/bin/sh
# Print each rule that the next packets of a flow meet on this host, whoever's rule it is, for some seconds.
#
# From the environment: FAMILY (ip or ip6), SOURCE, DESTINATION, MATCH (an nft expression), DURATION. A table of our
# own marks the packets, two a second, before any other; it goes when this ends.
set -eu

command -v nft >/dev/null || {
    echo "trace: nft is not installed on this host" >&2
    exit 1
}
trap 'nft delete table inet calico-lab-trace 2>/dev/null || true' EXIT
trap 'exit 1' HUP INT TERM

nft -f - <<TABLE
table inet calico-lab-trace {
    chain prerouting {
        type filter hook prerouting priority -450
        $FAMILY saddr $SOURCE $FAMILY daddr $DESTINATION $MATCH limit rate 2/second meta nftrace set 1
    }
}
TABLE
timeout "$DURATION" xtables-monitor --trace || [ $? -eq 124 ]

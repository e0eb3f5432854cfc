#!/bin/sh
# Print each rule that packets of a flow meet on this host, the rules of other programs included.
#   $FAMILY                ip or ip6
#   $SOURCE, $DESTINATION  addresses
#   $MATCH                 the rest of the match, as an nft expression
#   $DURATION              seconds
#
# The table calico-lab-trace marks two packets a second before any other table. It has no verdict. It is deleted at the
# end; a table that a killed run has left is deleted by the next run.
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
        echo "trace: another trace runs on this host; try again in some seconds" >&2
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

# In a subshell, so that the table is deleted before a script that follows.
(trace)

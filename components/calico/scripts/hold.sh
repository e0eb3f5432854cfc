#!/bin/bash
# Reserve the addresses of this host's containers on network $NETWORK in a restored datastore, which may not know them.
# So no driver assigns them to another container until this host's driver has allocated them again (resume.sh).
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
addresses=$(docker network inspect --format '{{range .Containers}}{{.IPv4Address}} {{end}}' "$NETWORK")
read -ra addresses <<<"$addresses"
[ "${#addresses[@]}" -gt 0 ] || exit 0
{
    printf 'apiVersion: projectcalico.org/v3\nkind: IPReservation\nmetadata: {name: restored-%s}\n' "$HOST"
    printf 'spec:\n  reservedCIDRs:\n'
    printf '    - %s\n' "${addresses[@]}"
} | calicoctl apply -f - >/dev/null

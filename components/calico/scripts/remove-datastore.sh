#!/bin/bash
# Take the network out of Calico's datastore. An etcd without quorum must not keep the lab from being removed.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
calicoctl() { timeout 10 /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch "$@"; }

# The ends of tunnels have addresses of the pool, and would keep its blocks.
ends='{{range .}}{{range .Items}}{{.Name}} {{.Spec.IPv4VXLANTunnelAddr}}
{{end}}{{end}}'
calicoctl get nodes -o go-template="$ends" 2>/dev/null | while read -r node address; do
    [ -n "$address" ] || continue
    calicoctl ipam release --ip="$address" >/dev/null || true
    calicoctl patch node "$node" --patch='{"spec":{"ipv4VXLANTunnelAddr":null}}' >/dev/null || true
done || true
for resource in "ippool $POOL" "ipreservation $RESERVATION" "bgppeer $PEERING" "felixconfiguration default" \
    "bgpconfiguration default"; do
    # shellcheck disable=SC2086 # a kind and a name
    calicoctl delete --skip-not-exists $resource >/dev/null ||
        echo "$HOST: calico: $resource stays in the datastore, which does not answer" >&2
done

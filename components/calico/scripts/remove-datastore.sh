#!/bin/bash
# Delete the network's resources from Calico's datastore. An etcd without a quorum does not stop the removal of the lab.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
CALICOCTL_SECONDS=10

# The addresses of VXLAN interfaces are released first, because the pool's blocks cannot be deleted while they hold
# them.
template='{{range .}}{{range .Items}}{{.Name}} {{.Spec.IPv4VXLANTunnelAddr}}
{{end}}{{end}}'
calicoctl get nodes -o go-template="$template" 2>/dev/null | while read -r node address; do
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
